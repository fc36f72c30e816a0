"""The last word of passages, after LAMBADA: with the rest learned, in the prompt, or only its last sentence there."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hope_serve.errors import InvalidRequest
from hope_serve.evals.reading import Rival
from hope_serve.evals.report import Cell, Line, Table, Unit
from hope_serve.evals.subject import MARGIN_TOKENS, Subject, complete

MOST_PASSAGES = 500
MEMORY, PROMPT, NEITHER, RIVAL = "memory", "all in the prompt", "neither", "rival, all in the prompt"

Passage = tuple[str, str]
"""All but the last word, and that."""
Word = tuple[float, bool]
"""A word's log-probability, and whether its tokens are the likeliest."""


async def last_words(subject: Subject, title: str, passages: Sequence[Passage], rival: Rival | None = None) -> Table:
    """How often the word is the likeliest, and its nats, by every arm; passages that no prompt holds are left out."""
    told = complete(await subject.gather("passages: lengths", (_fits(subject, one) for one in passages)))
    fit = [one for one, fits in zip(passages, told or (), strict=False) if fits]
    users = await subject.gather("passages: teach", (subject.taught([start]) for start, _ in fit))
    arms: dict[str, list[Coroutine[Any, Any, Word | None]]] = {
        MEMORY: [
            _word(subject, (last_sentence(start), word), user) for (start, word), user in zip(fit, users, strict=True)
        ],
        PROMPT: [_word(subject, one) for one in fit],
        NEITHER: [_word(subject, (last_sentence(start), word)) for start, word in fit],
    }
    if rival is not None:
        arms[RIVAL] = [rival.word(start, f" {word}") for start, word in fit]
    shares: list[Cell] = []
    nats: list[Cell] = []
    for arm, calls in arms.items():
        said = complete(await subject.gather(f"last words: {arm}", calls))
        shares.append(sum(greedy for _, greedy in said) / len(said) if said else None)
        nats.append(-sum(logprob for logprob, _ in said) / len(said) if said else None)
    lines = (
        Line(name="said greedily", cells=tuple(shares), count=len(fit)),
        Line(name="nats of the word", cells=tuple(nats), count=len(fit)),
    )
    note = _NOTE.format(out=len(passages) - len(fit), most=subject.max_tokens)
    return Table(title=title, head="", columns=tuple(arms), lines=lines, unit=Unit.NUMBER, note=note)


def load_passages(path: Path) -> list[Passage]:
    """Every passage of a file.

    Raises:
        InvalidRequest: naming file, line and what is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(path), f"it cannot be read as UTF-8 text: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            start, _, word = _passage(path, number, line).strip().rpartition(" ")
            if not start:
                raise InvalidRequest(
                    f"{path}:{number}", f"{word[:40]!r} is one word; a passage has more before its last"
                )
            found.append((start, word))
    if not found:
        raise InvalidRequest(str(path), "it holds no passages; write one a line")
    return found


def last_sentence(text: str) -> str:
    """The open sentence at the end of a passage without its last word; the whole where no other ends in it."""
    cut = max(text.rfind(mark) for mark in (". ", "! ", "? ", '" '))
    return text[cut + 2 :] if 0 <= cut < len(text) - 2 else text


async def _fits(subject: Subject, passage: Passage) -> bool:
    """Whether the whole passage is within a prompt."""
    text, most = " ".join(passage), subject.max_tokens - MARGIN_TOKENS
    return len(text.encode()) <= most or len(await subject.client.tokenize(text)) <= most


async def _word(subject: Subject, passage: Passage, user: str | None = "") -> Word | None:
    """After the text before it. user: None where teaching failed, and there is no word then."""
    if user is None:
        return None
    before, word = passage
    (one,) = await subject.client.score(before, [f" {word}"], user_id=user)
    return one.logprob, one.is_greedy


def _passage(path: Path, number: int, line: str) -> str:
    if not line.lstrip().startswith("{"):
        return line
    try:
        return msgspec.json.decode(line, type=_Line).text
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{path}:{number}", f'{error}; a line is {{"text": "..."}} or plain text') from error


class _Line(msgspec.Struct, frozen=True):
    text: str


_NOTE = (
    "*memory*: the passage was learned, and its last, open sentence is the prompt. *neither*: that sentence alone. "
    "Left out as longer than the {most:,} tokens of a prompt: {out}."
)
