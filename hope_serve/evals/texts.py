"""How likely running text is: log-probabilities of its tokens, with a memory and without."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from hope_serve.errors import InvalidRequest
from hope_serve.evals.report import Cell
from hope_serve.evals.subject import Subject, complete
from hope_serve.training.lessons.prose import Prose

SEPARATOR = "\x1e"
CHARACTERS_AT_ONCE = 200_000


class Weighed(NamedTuple):
    """Nats of a text's tokens, None where they were not all weighed, and how many bytes they stand for."""

    nats: Cell
    num_bytes: int

    @property
    def bits_per_byte(self) -> Cell:
        """Bits a byte."""
        return None if self.nats is None else self.nats / math.log(2) / self.num_bytes


def read_text(path: Path, characters: int) -> str:
    """The beginning of a file. Raises InvalidRequest."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(characters).replace(SEPARATOR, "")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(path), f"it cannot be read as UTF-8 text: {error}") from error
    if len(text) < min(characters, 200):
        raise InvalidRequest(str(path), f"{len(text)} characters are too few to measure; name a longer text")
    return text


def load_prose(folder: Path | None, draw: random.Random) -> Prose:
    """Running text: the test files of a folder, or the bundled passages. Raises InvalidRequest."""
    if folder is None:
        return Prose({"books": files("hope_serve.training").joinpath("unrelated.txt").read_text("utf-8")}, draw)
    try:
        return Prose.load(folder, "test", draw)
    except (OSError, ValueError) as error:
        raise InvalidRequest("--text", str(error)) from error


async def token_ids(subject: Subject, text: str) -> list[int]:
    """Ids of a long text, by the server's tokenizer, cut at spaces for the calls."""
    ids: list[int] = []
    while text:
        cut = len(text) if len(text) <= CHARACTERS_AT_ONCE else text.rfind(" ", 1, CHARACTERS_AT_ONCE)
        cut = cut if cut > 0 else CHARACTERS_AT_ONCE
        ids += await subject.client.tokenize(text[:cut])
        text = text[cut:]
    return ids


def windows(ids: Sequence[int], size: int) -> list[list[int]]:
    """Whole windows of ``size`` ids. Raises InvalidRequest: there is none, or nothing in it to weigh."""
    if size < 2:
        raise InvalidRequest("text", f"a window of {size} tokens holds nothing to weigh; serve longer prompts")
    if len(ids) < size:
        raise InvalidRequest("text", f"{len(ids)} tokens are fewer than a window of {size}; name a longer text")
    return [list(ids[at : at + size]) for at in range(0, len(ids) - size + 1, size)]


async def weigh(subject: Subject, rows: Sequence[Sequence[int]], user: str = "", *, stage: str = "read") -> Weighed:
    """All tokens of every window but its first."""
    scored = complete(await subject.gather(stage, (subject.token_logprobs(row[:1], row[1:], user) for row in rows)))
    return Weighed(None if scored is None else -sum(map(sum, scored)), await num_bytes(subject, rows))


async def num_bytes(subject: Subject, rows: Sequence[Sequence[int]]) -> int:
    """UTF-8 bytes of the weighed tokens of windows."""
    whole = [await subject.client.detokenize(list(row)) for row in rows]
    first = [await subject.client.detokenize(list(row[:1])) for row in rows]
    return sum(len(text.encode()) for text in whole) - sum(len(text.encode()) for text in first)
