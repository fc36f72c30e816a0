"""Several users' segments in one pass: their gradients by what each has learned, and what these move."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.engine.updating import update_level
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState
from hope_serve.model.learn import read_deltas_where
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.kind import StatePool
from hope_serve.model.serving.model import LayerDeltas, ServedModel
from hope_serve.model.serving.slab import Slab

LOGITS_AT_ONCE = 256
"""Rows whose logits are in memory together, where nothing is differentiated."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The next segments of B lessons, behind each other.

    batch: as ``ServedModel.run`` takes it; targets: [N]; scales: [levels, B] fp32, a factor on each lesson's gradient.
    """

    batch: Batch
    targets: Tensor
    scales: Tensor
    lengths: list[int]

    def to(self, device: torch.device) -> Rows:
        """The same there."""
        batch = self.batch
        there = Batch(
            tokens=batch.tokens.to(device),
            slots=batch.slots.to(device),
            starts=None if batch.starts is None else batch.starts.to(device),
            memories=None if batch.memories is None else batch.memories.to(device),
        )
        return replace(self, batch=there, targets=self.targets.to(device), scales=self.scales.to(device))


@dataclass(frozen=True, kw_only=True)
class SegmentGradients:
    """gradients: a Delta an online level, [B, L, ...], of rows ``scales`` [levels, B].

    figures: [3, B], the norm of each lesson's gradients, that of the step which they alone would make, and the summed
    loss of its segment.
    """

    gradients: list[Delta]
    scales: Tensor
    figures: Tensor


@dataclass(frozen=True, kw_only=True)
class Moves:
    """What B lessons' gradients may do; on the host.

    slots: [B] int32, 0 for a lesson that is refused; shares: [B] fp32, of its step; due: [levels, B] bool, whose chunk
    ends.
    """

    slots: Tensor
    shares: Tensor
    due: Tensor


@dataclass(frozen=True, kw_only=True)
class LearningPools:
    """What lessons hold by slot: a sequence's state, all that a memory is made of, and what it reads when it is kept.

    kept: the dtype that memories are kept in.
    """

    state: StatePool
    learned: Slab
    cms: CmsState
    reads: Slab
    kept: torch.dtype


class Passes(Protocol):
    """What is computed for several lessons together. Arguments lie on the host, results on the device."""

    def learn(self, rows: Rows) -> SegmentGradients:
        """See ``SegmentGradients``; what the lessons' sequences carry moves on. The next call may overwrite them."""
        ...

    def move(self, found: SegmentGradients, moves: Moves) -> None:
        """Add the gradients that were found last to the open chunks, and fire the levels whose chunk ends."""
        ...

    def losses(self, rows: Rows) -> Tensor:
        """[B], each segment's summed loss by what was learned; nothing is differentiated."""
        ...

    def settle(self, slots: Tensor, is_open: Tensor) -> Tensor:
        """Round what was learned to what will be kept, and make ready what it reads.

        Args:
            slots: [B] int64.
            is_open: [levels, B] bool, whose chunk has not ended.

        Returns:
            [parts, B] bool, whether every number of a part of a memory can be kept.
        """
        ...


class Segments:
    """``Passes`` operation by operation, on the device of the arguments or the pools'."""

    def __init__(self, model: ServedModel, pools: LearningPools) -> None:
        self.model, self.pools = model, pools
        self._bound_reads = model.bind_deltas(pools.reads.views)

    def learn(self, rows: Rows) -> SegmentGradients:
        """See ``Passes``."""
        rows = rows.to(self.model.device)
        leaves = self._leaves(rows.batch.slots)
        with torch.enable_grad():
            hidden = self.model.run(rows.batch, self.pools.state, leaves)
            nll = F.cross_entropy(self.model.logits(hidden), rows.targets, reduction="none")
            loss = (self.model.learning_weight(hidden) * nll).sum()
            # A side without rows takes part in nothing, and its gradient has none.
            flat = torch.autograd.grad(
                loss, [side for layer in leaves for pair in layer for side in pair], materialize_grads=True
            )
        gradients = self._stacked(flat)
        with torch.no_grad():
            figures = torch.stack([*self._norms(gradients, rows.scales), _sums(rows, nll)])
        return SegmentGradients(gradients=gradients, scales=rows.scales, figures=figures)

    @torch.no_grad()
    def move(self, found: SegmentGradients, moves: Moves) -> None:
        """See ``Passes``."""
        device = self.model.device
        slots, due = moves.slots.to(device), moves.due.to(device)
        scales = found.scales * moves.shares.to(device)
        for level, (rule, gradient) in enumerate(zip(self.model.rules, found.gradients, strict=True)):
            update_level(rule, self.pools.cms.levels[level], gradient, slots, due[level], scales[level])

    @torch.no_grad()
    def losses(self, rows: Rows) -> Tensor:
        """See ``Passes``."""
        rows = rows.to(self.model.device)
        batch = Batch(tokens=rows.batch.tokens, slots=rows.batch.slots, starts=rows.batch.starts)
        hidden = self.model.run(batch, self.pools.state, self._bound_reads)
        parts = zip(torch.split(hidden, LOGITS_AT_ONCE), torch.split(rows.targets, LOGITS_AT_ONCE), strict=True)
        return _sums(rows, torch.cat([F.cross_entropy(self.model.logits(h), t, reduction="none") for h, t in parts]))

    @torch.no_grad()
    def settle(self, slots: Tensor, is_open: Tensor) -> Tensor:
        """See ``Passes``."""
        pools, device = self.pools, self.model.device
        slots, is_open = slots.to(device), is_open.to(device)
        finite = []
        for view in pools.learned.views.values():
            kept = view.index_select(0, slots).to(pools.kept).float()
            view.index_copy_(0, slots, kept)
            finite.append(torch.isfinite(kept).flatten(1).all(1))
        taken = pools.cms.map(lambda t: t.index_select(0, slots))
        for i, pair in enumerate(read_deltas_where(self.model.rules, taken, is_open)):
            for side, tensor in zip(Delta._fields, pair, strict=True):
                if tensor.shape[-2]:
                    view = pools.reads.views[f"{i}.delta.{side}"]
                    view.index_copy_(0, slots, tensor.to(view.dtype))
        return torch.stack(finite)

    def _leaves(self, slots: Tensor) -> LayerDeltas:
        """Copies of the learning slots' deltas, behind a null slot, layer by layer: what is differentiated by."""
        index = F.pad(slots.long(), (1, 0))
        return [
            [
                Delta(*(side[:, layer].index_select(0, index).requires_grad_() for side in level.delta))
                for level in self.pools.cms.levels
            ]
            for layer in range(self.model.config.num_layers)
        ]

    def _stacked(self, flat: Seq[Tensor]) -> list[Delta]:
        """Gradients layer by layer as one Delta a level, [B, L, ...], without the null slot."""
        num_levels = len(self.pools.cms.levels)
        sides = [torch.stack([g[1:] for g in flat[i :: 2 * num_levels]], 1) for i in range(2 * num_levels)]
        return [Delta(sides[2 * i], sides[2 * i + 1]) for i in range(num_levels)]

    def _norms(self, gradients: list[Delta], scales: Tensor) -> tuple[Tensor, Tensor]:
        """[B] each: the gradients' norm, and that of the step which they alone would make."""
        squares, steps = [], []
        for pair, scale, rule in zip(gradients, scales, self.model.rules, strict=True):
            for gradient, rate in zip(pair, rule.rates, strict=True):
                scaled = gradient.float() * scale[:, None, None, None]
                squares.append(scaled.square().flatten(1).sum(1))
                steps.append((scaled * rate.float()).square().flatten(1).sum(1))
        return torch.stack(squares).sum(0).sqrt(), torch.stack(steps).sum(0).sqrt()


def _sums(rows: Rows, nll: Tensor) -> Tensor:
    """[B], each segment's summed loss; always in the same order, and no other segment's number is touched."""
    assert rows.batch.starts is not None
    count, places = rows.scales.shape[1], torch.arange(len(nll), device=nll.device)
    first, end = rows.batch.starts[:count, None], rows.batch.starts[1 : count + 1, None]
    return torch.where((places >= first) & (places < end), nll, 0.0).sum(1)
