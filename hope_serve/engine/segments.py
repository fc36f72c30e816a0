"""Several users' segments in one pass: their gradients by what each has learned, and their losses by it."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.engine.graphs import buckets
from hope_serve.engine.lesson import REREAD_TOKENS
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.kind import StatePool
from hope_serve.model.serving.model import LayerDeltas, ServedModel

T = TypeVar("T")

log = logging.getLogger(__name__)

LOGITS_AT_ONCE = 256
"""Rows whose logits are in memory together, where nothing is differentiated."""
SPARE_ROWS = 16
"""Rows of a captured pass that no lesson ever needs: they belong to the padding behind them."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The next segments of B lessons, behind each other. batch: as ``ServedModel.run`` takes it; targets: [N]."""

    batch: Batch
    targets: Tensor
    lengths: list[int]


@dataclass(frozen=True, kw_only=True)
class SegmentGradients:
    """gradients: a Delta an online level, [B, L, ...]; nll: [N], each token's loss."""

    gradients: list[Delta]
    nll: Tensor


class PaddedRows:
    """Room at fixed addresses for the segments of up to ``count`` lessons, of at most ``whole`` tokens each.

    Behind the lessons' rows, those that are not used belong to slot 0: its rows change nobody's numbers.
    """

    def __init__(self, count: int, whole: int, device: torch.device) -> None:
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
            lengths=[],
        )

    def fill(self, rows: Rows) -> None:
        """Take segments in; what earlier ones left behind them stays, as padding."""
        batch, count, length = self.rows.batch, len(rows.lengths), len(rows.targets)
        assert batch.starts is not None
        batch.tokens[:length].copy_(rows.batch.tokens)
        self.rows.targets[:length].copy_(rows.targets)
        batch.slots.zero_()
        batch.slots[:count].copy_(rows.batch.slots)
        batch.starts.copy_(torch.tensor(self.starts(rows.lengths), dtype=torch.int32))

    def starts(self, lengths: list[int]) -> list[int]:
        """Where every sequence's rows begin: of the lessons, of the places left, one row each, and of the padding."""
        left = [1] * (self.count - len(lengths))
        return [0, *accumulate([*lengths, *left]), self._num_rows]


@dataclass(frozen=True, kw_only=True)
class _Graph(Generic[T]):
    """A captured pass. result: what a replay leaves."""

    graph: torch.cuda.CUDAGraph
    padded: PaddedRows
    result: T

    def replay(self, rows: Rows) -> T:
        self.padded.fill(rows)
        self.graph.replay()
        return self.result


class Segments:
    """Segments on the learning slots, differentiated or read again; what sequences carry moves on with them.

    On a CUDA device graphs do it, whatever the segments' lengths: a segment is thousands of small launches, and with
    each of them the thread gives the interpreter away. What a replay gives is overwritten by the next.

    Args:
        reads: what the slots' memories read as, when they are read again.
        max_lessons: how many learn in one pass.
    """

    def __init__(
        self, model: ServedModel, state: StatePool, cms: CmsState, reads: LayerDeltas, *, max_lessons: int
    ) -> None:
        self._model, self._state, self._cms, self._reads = model, state, cms, reads
        self.whole = min(model.config.levels[i].chunk_size for i in model.config.online_levels)
        self.counts = buckets(max_lessons)
        self._learning: dict[int, _Graph[SegmentGradients]] = {}
        self._reading: dict[int, _Graph[Tensor]] = {}

    def gradients(self, rows: Rows) -> SegmentGradients:
        """See ``SegmentGradients``."""
        if not self._learning:
            return self._gradients(rows)
        return unpadded(self._learning[self._bucket(rows)].replay(rows), rows)

    def losses(self, rows: Rows) -> Tensor:
        """Each token's loss by what was learned, [N]; nothing is differentiated."""
        if not self._reading:
            return self._losses(rows)
        return self._reading[self._bucket(rows)].replay(rows)[: len(rows.targets)]

    def capture(self) -> None:
        """Make the graphs, where there are any, on the null slot; large ones first, whose memory serves the small."""
        if self._model.device.type != "cuda" or not self._model.kind.captures_lessons:
            return
        memory, counts = torch.cuda.graph_pool_handle(), self.counts[::-1]
        try:
            learning = {n: self._captured(self._gradients, self.padded(n), memory) for n in counts}
            reading = {n: self._captured(self._losses, self.padded(n, REREAD_TOKENS), memory) for n in counts}
        except RuntimeError as error:  # out of memory, too; a pod that learns slowly is better than none
            log.warning("lessons cannot be captured and are launched operation by operation, slowly: %s", error)
            torch.cuda.synchronize()
            return
        self._learning, self._reading = learning, reading

    def padded(self, count: int, length: int | None = None) -> PaddedRows:
        """Room for ``count`` segments of up to ``length`` tokens; None is a whole chunk of the fastest level."""
        return PaddedRows(count, length or self.whole, self._model.device)

    def _bucket(self, rows: Rows) -> int:
        return self.counts[bisect.bisect_left(self.counts, len(rows.lengths))]

    def _captured(self, compute: Callable[[Rows], T], padded: PaddedRows, memory: Any) -> _Graph[T]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                compute(padded.rows)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
            result = compute(padded.rows)
        return _Graph(graph=graph, padded=padded, result=result)

    @torch.no_grad()
    def _losses(self, rows: Rows) -> Tensor:
        batch = Batch(tokens=rows.batch.tokens, slots=rows.batch.slots, starts=rows.batch.starts)
        hidden = self._model.run(batch, self._state, self._reads)
        parts = zip(torch.split(hidden, LOGITS_AT_ONCE), torch.split(rows.targets, LOGITS_AT_ONCE), strict=True)
        return torch.cat([F.cross_entropy(self._model.logits(h), t, reduction="none") for h, t in parts])

    def _gradients(self, rows: Rows) -> SegmentGradients:
        leaves = self._leaves(rows.batch.slots)
        with torch.enable_grad():
            hidden = self._model.run(rows.batch, self._state, leaves)
            nll = F.cross_entropy(self._model.logits(hidden), rows.targets, reduction="none")
            loss = (self._model.learning_weight(hidden) * nll).sum()
            # A side without rows takes part in nothing, and its gradient has none.
            flat = torch.autograd.grad(
                loss, [side for layer in leaves for pair in layer for side in pair], materialize_grads=True
            )
        return SegmentGradients(gradients=self._stacked(flat), nll=nll.detach())

    def _leaves(self, slots: Tensor) -> LayerDeltas:
        """Copies of the learning slots' deltas, behind a null slot, layer by layer: what is differentiated by."""
        index = F.pad(slots.long(), (1, 0))
        return [
            [
                Delta(*(side[:, layer].index_select(0, index).requires_grad_() for side in level.delta))
                for level in self._cms.levels
            ]
            for layer in range(self._model.config.num_layers)
        ]

    def _stacked(self, flat: Seq[Tensor]) -> list[Delta]:
        """Gradients layer by layer as one Delta a level, [B, L, ...], without the null slot."""
        num_levels = len(self._cms.levels)
        sides = [torch.stack([g[1:] for g in flat[i :: 2 * num_levels]], 1) for i in range(2 * num_levels)]
        return [Delta(sides[2 * i], sides[2 * i + 1]) for i in range(num_levels)]


def unpadded(found: SegmentGradients, rows: Rows) -> SegmentGradients:
    """What ``rows`` of a padded pass have to do with."""
    count, length = len(rows.lengths), len(rows.targets)
    gradients = [Delta(pair.inner[:count], pair.outer[:count]) for pair in found.gradients]
    return SegmentGradients(gradients=gradients, nll=found.nll[:length])
