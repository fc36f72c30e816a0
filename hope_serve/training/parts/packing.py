"""Lessons packed into rows of fixed size: told text cut where the server's chunks end, questions side by side."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_serve.model.attention_learn import PADDING, SHARED, Told
from hope_serve.training.parts.speech import Asked


class DoesNotFit(Exception):
    """The lesson is longer than its rows; draw a shorter one."""


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The sizes of one kind of batch.

    users: lessons side by side; chunks: updates of a lesson; chunk_tokens: positions of a chunk;
    fact_chunks: those that facts may take, the first ones; learned_chunks: those through which the outer gradient
    flows, the first ones, so that beyond the facts a chunk of other text may teach how little it should weigh;
    ask_tokens: of one user's row of questions; other_tokens: of one user's row of unrelated text; facts: least and most
    of a lesson; past_chunks: how many earlier chunks an adaptation still sees.
    """

    name: str
    users: int
    chunks: int
    chunk_tokens: int
    fact_chunks: int
    learned_chunks: int
    ask_tokens: int
    other_tokens: int
    facts: tuple[int, int]
    past_chunks: int = 1

    @property
    def told_tokens(self) -> int:
        """Positions that facts may take."""
        return self.fact_chunks * self.chunk_tokens

    @property
    def answer_tokens(self) -> int:
        """Tokens of answers that a user's row may hold, the mean of a batch: a quarter is usual."""
        return self.ask_tokens // 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """Positions of one user's told text: five lists of equal length."""

    inputs: list[int]
    targets: list[int]
    mask: list[float]
    positions: list[int]
    segments: list[int]


def tell_row(told: Sequence[list[int]], *, noise: Iterable[list[int]], bucket: Bucket) -> Row:
    """Adaptations one after the other as positions of consecutive chunks, then noise up to the last chunk's end.

    Each adaptation of n ids is n - 1 positions, in a context and in chunks of its own. One that goes over the end of a
    chunk goes on in the next, with what came before as a constant; its last chunk stays empty behind it.

    Raises:
        DoesNotFit: ``told`` takes more than the chunks of facts, or an adaptation spans more chunks than it sees.
    """
    row = Row(inputs=[], targets=[], mask=[], positions=[], segments=[])
    for ids in told:
        _append(row, ids, bucket)
    if len(row.inputs) > bucket.told_tokens:
        raise DoesNotFit(f"{len(row.inputs)} positions of {bucket.told_tokens}")
    whole = bucket.chunks * bucket.chunk_tokens
    for ids in noise:
        if len(row.inputs) >= whole:
            break
        _append(row, ids[: whole - len(row.inputs) + 1], bucket)
    return row


def ask_row(before: list[int], asked: Sequence[Asked], size: int) -> tuple[Row, int]:
    """Questions side by side in one row, each blind to the others; what they all begin with stands once, in front.

    Returns:
        the row, its ``mask`` the weight of each target, and how many questions it holds.

    Raises:
        DoesNotFit: not one question fits.
    """
    shares = all(one.prompt[: len(before)] == before for one in asked)
    common = before if shares else []
    row = Row(
        inputs=list(common),
        targets=[0] * len(common),
        mask=[0.0] * len(common),
        positions=list(range(len(common))),
        segments=[SHARED] * len(common),
    )
    held = 0
    for one in asked:
        ids = [*one.prompt[len(common) :], *one.answer]
        if len(row.inputs) + len(ids) - 1 > size:
            continue
        held += 1
        weights = [0.0] * (len(ids) - 1 - len(one.answer)) + one.weights
        _extend(row, ids, weights, first=len(common), segment=held)
    if not held:
        raise DoesNotFit(f"no question fits {size} tokens")
    return row, held


def told_tensors(rows: Sequence[Row], bucket: Bucket) -> Told:
    """Told rows as [U, chunks, chunk_tokens]."""
    size = bucket.chunks * bucket.chunk_tokens
    return Told(*(t.view(len(rows), bucket.chunks, bucket.chunk_tokens) for t in row_tensors(rows, size)))


def row_tensors(rows: Sequence[Row], size: int) -> Told:
    """Rows padded to [U, size]."""

    def column(name: str, fill: float, dtype: torch.dtype) -> Tensor:
        lists = [getattr(row, name) for row in rows]
        return torch.tensor([one + [fill] * (size - len(one)) for one in lists], dtype=dtype)

    return Told(
        inputs=column("inputs", 0, torch.long),
        targets=column("targets", 0, torch.long),
        mask=column("mask", 0.0, torch.float32),
        positions=column("positions", 0, torch.long),
        segments=column("segments", PADDING, torch.long),
    )


def in_turn(texts: Sequence[list[int]], draw: random.Random) -> Iterable[list[int]]:
    """The texts in some order, without end."""
    while texts:
        yield from draw.sample(texts, len(texts))


def _append(row: Row, ids: list[int], bucket: Bucket) -> None:
    start, end, chunk = len(row.inputs), len(row.inputs) + len(ids) - 1, bucket.chunk_tokens
    if end > start and (end - 1) // chunk - start // chunk > bucket.past_chunks:
        raise DoesNotFit(f"an adaptation of {len(ids)} ids spans more than {bucket.past_chunks + 1} chunks of {chunk}")
    segment = max(row.segments, default=SHARED) + 1
    _extend(row, ids, [1.0] * (len(ids) - 1), first=0, segment=segment)
    empty = -len(row.inputs) % chunk
    for values, nothing in ((row.inputs, 0), (row.targets, 0), (row.positions, 0), (row.segments, PADDING)):
        values.extend([nothing] * empty)
    row.mask.extend([0.0] * empty)


def _extend(row: Row, ids: list[int], weights: list[float], *, first: int, segment: int) -> None:
    count = len(ids) - 1
    row.inputs.extend(ids[:-1])
    row.targets.extend(ids[1:])
    row.mask.extend(weights)
    row.positions.extend(range(first, first + count))
    row.segments.extend([segment] * count)
