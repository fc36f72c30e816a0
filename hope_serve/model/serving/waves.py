"""A pass of many rows in parts beside each other: while one waits for its memories to move, another multiplies.

Titans' memories move chunk after chunk: a long prompt alone leaves most of a card idle while they do. So its parts run
on streams of their own, layer by layer, each behind the one before it only where a sequence goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from hope_serve.model.serving.batch import Batch

PART_ROWS = 2048
"""Rows of a part at least, so that its products still fill a card."""
MOST_PARTS = 4

Pass = Generator[None, None, Tensor]
"""A pass through the layers that stops before and behind each layer's mixer; it gives the hidden rows."""


class Part(NamedTuple):
    """Rows of a batch; ``follows``: its first sequence goes on where the part before it ends."""

    batch: Batch
    follows: bool


class Lane(NamedTuple):
    """A part's pass, whether it follows the one before it, and the stream that it has for itself; None on a CPU."""

    steps: Pass
    follows: bool
    stream: torch.cuda.Stream | None


class _Share(NamedTuple):
    sequence: int
    tokens: int


class Waves:
    """How a model's passes are cut, and the streams that their parts run on.

    Args:
        part_rows: see ``parts_of``; 0 leaves every pass whole.
        grain: tokens of a sequence, at multiples of which it is cut.
    """

    def __init__(self, device: torch.device, *, part_rows: int, grain: int) -> None:
        self._on_card, self.part_rows, self._grain = device.type == "cuda", part_rows, grain
        self._streams: list[torch.cuda.Stream] = []

    def run(self, batch: Batch, begin: Callable[[Batch], Pass], num_layers: int) -> Tensor:
        """The hidden rows of the pass that ``begin`` begins; whole where somebody differentiates it."""
        if not self.part_rows or batch.lengths is None or torch.is_grad_enabled():
            return whole(begin(batch))
        parts = parts_of(batch, part_rows=self.part_rows, grain=self._grain)
        if len(parts) == 1:
            return whole(begin(batch))
        while self._on_card and len(self._streams) < len(parts):
            # An early part goes first wherever two are ready: alike, they would wait and multiply at the same time.
            priority = min(0, len(self._streams) - MOST_PARTS + 1)
            self._streams.append(torch.cuda.Stream(priority=priority))  # type: ignore[no-untyped-call]
        streams = self._streams[: len(parts)] if self._on_card else [None] * len(parts)
        lanes = [Lane(begin(p.batch), p.follows, stream) for p, stream in zip(parts, streams, strict=True)]
        return in_waves(lanes, num_layers)


def parts_of(batch: Batch, *, part_rows: int, grain: int) -> list[Part]:
    """The batch in parts of at least ``part_rows`` rows but for the last, ``MOST_PARTS`` of them or one more.

    A sequence is cut at multiples of ``grain`` of its tokens here. Where the host knows no lengths there is one part.
    """
    lengths, total = batch.lengths or (), sum(batch.lengths or ())
    count = min(MOST_PARTS, total // part_rows)
    if count < 2:
        return [Part(batch, follows=False)]
    parts: list[Part] = []
    begin, last = 0, -1
    for shares in _shared_out(lengths, -(-total // (count * grain)) * grain, grain):
        end = begin + sum(share.tokens for share in shares)
        parts.append(Part(_rows_of(batch, shares, begin, end), follows=shares[0].sequence == last))
        begin, last = end, shares[-1].sequence
    return parts


def in_waves(lanes: Sequence[Lane], num_layers: int) -> Tensor:
    """The hidden rows of all lanes, one behind the other; the caller's stream waits for theirs, and they for it."""
    streams = [lane.stream for lane in lanes if lane.stream]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    try:
        for _ in range(num_layers):
            _one_layer(lanes)
        hidden = [_rest(lane) for lane in lanes]
    finally:
        for stream in streams:
            torch.cuda.current_stream().wait_stream(stream)
    return torch.cat(hidden)


def whole(steps: Pass) -> Tensor:
    """A pass to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            hidden: Tensor = end.value
            return hidden


def _one_layer(lanes: Sequence[Lane]) -> None:
    """Every lane up to behind its next mixer, which waits for the one of the lane before it where it must."""
    moved: torch.cuda.Event | None = None
    for lane in lanes:
        with _on(lane.stream):
            next(lane.steps)
            if lane.stream and lane.follows and moved:
                lane.stream.wait_event(moved)
            next(lane.steps)
            moved = lane.stream.record_event() if lane.stream else None


def _rest(lane: Lane) -> Tensor:
    with _on(lane.stream):
        return whole(lane.steps)


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    return torch.cuda.stream(stream) if stream else nullcontext()


def _shared_out(lengths: Sequence[int], size: int, grain: int) -> Iterator[list[_Share]]:
    """The sequences' tokens in order, up to ``size`` together."""
    shares: list[_Share] = []
    room = size
    for sequence, length in enumerate(lengths):
        left = length
        while left:
            taken = left if left <= room else room // grain * grain
            if taken:
                shares.append(_Share(sequence, taken))
            left, room = left - taken, room - taken
            if left:
                yield shares
                shares, room = [], size
    if shares:
        yield shares


def _rows_of(batch: Batch, shares: list[_Share], begin: int, end: int) -> Batch:
    """Rows [begin, end); what kernels point to is copied, as they are compiled for where it lies."""
    assert batch.starts is not None
    first, behind = shares[0].sequence, shares[-1].sequence + 1
    return Batch(
        tokens=batch.tokens[begin:end],
        slots=batch.slots[first:behind].clone(),
        starts=batch.starts[first : behind + 1].clamp(begin, end) - begin,
        memories=None if batch.memories is None else batch.memories[first:behind].clone(),
        remembers=batch.remembers,
        reads_memory=batch.reads_memory,
        fills_chunk=batch.fills_chunk,
        lengths=tuple(share.tokens for share in shares),
    )
