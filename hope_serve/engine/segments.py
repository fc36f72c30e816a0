"""The gradient of several users' segments by what each has learned: one pass forwards, one backwards."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.kind import StatePool
from hope_serve.model.serving.model import LayerDeltas, ServedModel

CAPTURED = (1, 2, 4, 8, 16)
"""Numbers of lessons whose whole segments have a captured graph."""


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


@dataclass(frozen=True, kw_only=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    rows: Rows
    result: SegmentGradients


class Segments:
    """Differentiates segments on the learning slots; what sequences carry moves on with them.

    On a CUDA device, lessons that all learn a whole chunk of the fastest level replay a graph, captured when first
    needed: a segment is thousands of small launches.
    """

    def __init__(self, model: ServedModel, state: StatePool, cms: CmsState) -> None:
        self._model, self._state, self._cms = model, state, cms
        self._whole = min(model.config.levels[i].chunk_size for i in model.config.online_levels)
        self._graphs: dict[int, _Graph] = {}

    def gradients(self, rows: Rows) -> SegmentGradients:
        """See ``SegmentGradients``; what a replay gives is overwritten by the next."""
        count = len(rows.lengths)
        alike = all(length == self._whole for length in rows.lengths)
        replays = self._model.device.type == "cuda" and self._model.kind.captures_lessons
        if not (replays and alike and count in CAPTURED):
            return self._compute(rows)
        captured = self._graphs.get(count) or self._capture(rows)
        for name in ("tokens", "slots"):
            getattr(captured.rows.batch, name).copy_(getattr(rows.batch, name))
        captured.rows.targets.copy_(rows.targets)
        captured.graph.replay()
        return captured.result

    def _capture(self, rows: Rows) -> _Graph:
        """A graph for as many whole segments; made on the null slot, so that nobody's state moves."""
        own = Rows(
            batch=Batch(
                tokens=rows.batch.tokens.clone(),
                slots=torch.zeros_like(rows.batch.slots),
                starts=rows.batch.starts,
                memories=rows.batch.memories,
            ),
            targets=rows.targets.clone(),
            lengths=rows.lengths,
        )
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self._compute(own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._compute(own)
        captured = _Graph(graph=graph, rows=own, result=result)
        self._graphs[len(rows.lengths)] = captured
        return captured

    def _compute(self, rows: Rows) -> SegmentGradients:
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
