"""How likely ids are to a reader, by what stands before them: running text, positions of a window, a passage twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hope_serve.evals.report import Cell
from hope_serve.evals.subject import Subject, complete
from hope_serve.evals.texts import windows

WINDOW, LONG_WINDOW, CONTEXT = 512, 1024, 2048
PASSAGE = 100
POSITIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Curve = tuple[tuple[float, float], ...]
"""(last position of a group, mean nats in it), groups doubling in size."""


class Reader(Protocol):
    """Whoever says how likely ids are: a server, or a model in this process."""

    @property
    def max_tokens(self) -> int:
        """Of a prompt, what is weighed behind it included."""

    async def token_logprobs(self, prompt: Sequence[int], rest: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities of the ids of ``rest`` after ``prompt``."""


class Rival(Reader, Protocol):
    """A model beside the one that is served, with the same tokens."""

    @property
    def note(self) -> str:
        """What it is, and what it was trained on."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""

    async def word(self, before: str, word: str) -> tuple[float, bool]:
        """A word's log-probability after a text, and whether its tokens are the likeliest."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of a window, of a long one, and of a passage that is read twice: as many as everybody takes."""

    window: int
    long_window: int
    passage: int

    @classmethod
    def within(cls, readers: Sequence[Reader], max_adapt_tokens: int) -> Lengths:
        """What fits."""
        most = min(reader.max_tokens for reader in readers)
        return cls(
            window=min(WINDOW, most, max_adapt_tokens),
            long_window=min(LONG_WINDOW, most),
            passage=min(PASSAGE, most // 2),
        )

    def before(self, reader: Reader) -> int:
        """Tokens of context that a reader takes before a window; 0: none fits."""
        return max(0, min(CONTEXT, reader.max_tokens - self.window))


async def in_context(
    subject: Subject, reader: Reader, rows: Sequence[Sequence[int]], *, before: int, stage: str
) -> Cell:
    """Nats of all tokens of every window but its first, with up to ``before`` tokens of what came before it."""
    flat = [token for row in rows for token in row]
    size = len(rows[0])

    def earlier(index: int) -> list[int]:
        return flat[max(0, index * size - before) : index * size]

    calls = (reader.token_logprobs([*earlier(i), row[0]], row[1:]) for i, row in enumerate(rows))
    scored = complete(await subject.gather(stage, calls))
    return None if scored is None else -sum(map(sum, scored))


async def as_it_reads(subject: Subject, rows: Sequence[Sequence[int]], *, stage: str) -> float:
    """Nats of all windows in their order, each learned once it was weighed."""
    user, nats = subject.newcomer(), 0.0
    with subject.bars.stage(stage, len(rows)) as step:
        for row in rows:
            nats -= sum(await subject.token_logprobs(row[:1], row[1:], user))
            await subject.client.adapt(user, list(row))
            step()
    return nats


async def by_position(subject: Subject, reader: Reader, ids: Sequence[int], *, size: int, stage: str) -> Curve:
    """Of windows of ``size`` tokens."""
    rows = windows(ids, min(size, len(ids)))
    scored = complete(await subject.gather(stage, (reader.token_logprobs(row[:1], row[1:]) for row in rows)))
    points = []
    for start, end in zip((0, *POSITIONS), POSITIONS, strict=False):
        nats = [-p for row in scored or () for p in row[start:end]]
        if nats:
            points.append((float(end), sum(nats) / len(nats)))
    return tuple(points)


async def twice(
    subject: Subject, reader: Reader, passages: Sequence[Sequence[int]], *, stage: str
) -> tuple[Cell, Cell]:
    """Nats a token of passages twice in a row, the first time and the second; but for each first token."""
    calls = (reader.token_logprobs(one[:1], [*one[1:], *one]) for one in passages)
    scored = complete(await subject.gather(stage, calls))
    if not scored:
        return None, None
    size = len(passages[0])
    first = [-p for row in scored for p in row[: size - 1]]
    second = [-p for row in scored for p in row[size:]]
    return sum(first) / len(first), sum(second) / len(second)
