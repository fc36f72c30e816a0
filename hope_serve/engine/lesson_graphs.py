"""Lessons on a CUDA device as captured graphs: one of each kind of pass for every number of lessons."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor

from hope_serve.engine.graphs import buckets, capture
from hope_serve.engine.lesson import REREAD_TOKENS
from hope_serve.engine.segments import Moves, Rows, SegmentGradients, Segments
from hope_serve.model.cms import Delta
from hope_serve.model.serving.batch import Batch

T = TypeVar("T")

log = logging.getLogger(__name__)

SPARE_ROWS = 16
"""Rows of a captured pass that no lesson ever needs: they belong to the padding behind them."""


class PaddedRows:
    """Room at fixed addresses for the segments of up to ``count`` lessons, of at most ``whole`` tokens each.

    Behind the lessons' rows, those that are not used belong to slot 0: its rows change nobody's numbers.
    """

    def __init__(self, count: int, whole: int, num_levels: int, device: torch.device) -> None:
        self.count, self._num_rows = count, count * whole + SPARE_ROWS
        zeros = partial(torch.zeros, device=device)
        self.rows = Rows(
            batch=Batch(
                tokens=zeros(self._num_rows, dtype=torch.int64),
                slots=zeros(count + 1, dtype=torch.int32),
                starts=torch.tensor(self.starts([]), dtype=torch.int32, device=device),
                memories=torch.tensor([*range(1, count + 1), 0], dtype=torch.int32, device=device),
            ),
            targets=zeros(self._num_rows, dtype=torch.int64),
            scales=zeros(num_levels, count + 1),
            lengths=[],
        )

    def fill(self, rows: Rows) -> None:
        """Take segments in; what earlier ones left behind them stays, as padding."""
        ours, length = self.rows, len(rows.targets)
        assert ours.batch.starts is not None
        ours.batch.tokens[:length].copy_(rows.batch.tokens)
        ours.targets[:length].copy_(rows.targets)
        ours.batch.slots.copy_(padded(rows.batch.slots, self.count + 1))
        ours.batch.starts.copy_(torch.tensor(self.starts(rows.lengths), dtype=torch.int32))
        ours.scales.copy_(padded(rows.scales, self.count + 1))

    def starts(self, lengths: list[int]) -> list[int]:
        """Where every sequence's rows begin: of the lessons, of the places left, one row each, and of the padding."""
        left = [1] * (self.count - len(lengths))
        return [0, *accumulate([*lengths, *left]), self._num_rows]


@dataclass(frozen=True, kw_only=True)
class _Graph(Generic[T]):
    """A captured pass. result: what a replay leaves."""

    graph: torch.cuda.CUDAGraph
    result: T

    def replay(self) -> T:
        self.graph.replay()
        return self.result


@dataclass(frozen=True, kw_only=True)
class _Pass(Generic[T]):
    """A captured pass over segments."""

    room: PaddedRows
    graph: _Graph[T]

    def of(self, rows: Rows) -> T:
        self.room.fill(rows)
        return self.graph.replay()


class LessonGraphs:
    """``Passes`` as graphs, whatever the segments' lengths; what a replay gives is overwritten by the next.

    Launched one by one a segment is thousands of small operations, the updates and the end of a lesson are hundreds,
    and with each of them the thread gives the interpreter away to whoever answers readers meanwhile.

    Where a level's optimizer has no kernel, what it moves depends on the numbers, and is not captured.
    """

    def __init__(self, segments: Segments, *, max_lessons: int, whole: int) -> None:
        self._segments, self._counts = segments, buckets(max_lessons)
        self._device = segments.model.device
        self._num_levels = len(segments.model.rules)
        self._memory = torch.cuda.graph_pool_handle()
        counts = self._counts[::-1]  # large ones first, whose memory serves the small
        self._learning = {n: self._pass(segments.learn, n, whole) for n in counts}
        self._reading = {n: self._pass(segments.losses, n, REREAD_TOKENS) for n in counts}
        self._moving: dict[int, tuple[Moves, _Graph[None]]] = {}
        self._settling: dict[int, tuple[Tensor, Tensor, _Graph[Tensor]]] = {}
        if all(rule.optimizer.kernel for rule in segments.model.rules):
            self._moving = {n: self._captured_move(n) for n in counts}
            self._settling = {n: self._captured_settle(n) for n in counts}

    @classmethod
    def try_to(cls, segments: Segments, *, max_lessons: int, whole: int) -> Self | None:
        """Make them on the null slot, where there are any; None where there are none, or no memory for them."""
        if segments.model.device.type != "cuda" or not segments.model.kind.captures_lessons:
            return None
        try:
            return cls(segments, max_lessons=max_lessons, whole=whole)
        except RuntimeError as error:  # out of memory, too; a pod that learns slowly is better than none
            log.warning("lessons cannot be captured and are launched operation by operation, slowly: %s", error)
            torch.cuda.synchronize()
            return None

    def learn(self, rows: Rows) -> SegmentGradients:
        """See ``Passes``."""
        return self._learning[self._bucket(len(rows.lengths))].of(rows)

    def losses(self, rows: Rows) -> Tensor:
        """See ``Passes``."""
        return self._reading[self._bucket(len(rows.lengths))].of(rows)[: len(rows.lengths)]

    def move(self, found: SegmentGradients, moves: Moves) -> None:
        """See ``Passes``."""
        count = self._bucket(len(moves.slots))
        if not self._moving:
            self._segments.move(cut(found, len(moves.slots)), moves)
            return
        ours, graph = self._moving[count]
        for name in ("slots", "shares", "due"):
            getattr(ours, name).copy_(padded(getattr(moves, name), count + 1))
        graph.replay()

    def settle(self, slots: Tensor, is_open: Tensor) -> Tensor:
        """See ``Passes``."""
        if not self._settling:
            return self._segments.settle(slots, is_open)
        count = self._bucket(len(slots))
        our_slots, ours_open, graph = self._settling[count]
        our_slots.copy_(padded(slots, count))
        ours_open.copy_(padded(is_open, count))
        return graph.replay()[:, : len(slots)]

    def _bucket(self, count: int) -> int:
        return self._counts[bisect.bisect_left(self._counts, count)]

    def _pass(self, compute: Callable[[Rows], T], count: int, length: int) -> _Pass[T]:
        room = PaddedRows(count, length, self._num_levels, self._device)
        return _Pass(room=room, graph=self._captured(lambda: compute(room.rows)))

    def _captured_move(self, count: int) -> tuple[Moves, _Graph[None]]:
        found = self._learning[count].graph.result
        zeros = partial(torch.zeros, device=self._device)
        ours = Moves(
            slots=zeros(count + 1, dtype=torch.int32),
            shares=zeros(count + 1),
            due=zeros(self._num_levels, count + 1, dtype=torch.bool),
        )
        return ours, self._captured(lambda: self._segments.move(found, ours))

    def _captured_settle(self, count: int) -> tuple[Tensor, Tensor, _Graph[Tensor]]:
        slots = torch.zeros(count, dtype=torch.int64, device=self._device)
        is_open = torch.zeros(self._num_levels, count, dtype=torch.bool, device=self._device)
        return slots, is_open, self._captured(lambda: self._segments.settle(slots, is_open))

    def _captured(self, compute: Callable[[], T]) -> _Graph[T]:
        graph, result = capture(compute, self._memory)
        return _Graph(graph=graph, result=result)


def padded(values: Tensor, count: int) -> Tensor:
    """[..., B] with zeros behind, [..., count]."""
    return torch.nn.functional.pad(values, (0, count - values.shape[-1]))


def cut(found: SegmentGradients, count: int) -> SegmentGradients:
    """What a padded pass has found for ``count`` lessons."""
    gradients = [Delta(pair.inner[:count], pair.outer[:count]) for pair in found.gradients]
    return SegmentGradients(gradients=gradients, scales=found.scales[:, :count], figures=found.figures[:, :count])
