"""A CMS level as served: the shared matrices stacked over their projections, and what every slot has learned."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hope_kernels.cms_delta.op import cms_delta
from torch import Tensor

from hope_serve.model.cms import Delta, Level
from hope_serve.model.serving.batch import Batch


class _Matrix(NamedTuple):
    """W [d_out, d_in] over A [r, d_in], so that both products are one; r = 0 without a subspace."""

    stacked: Tensor
    width: int


class ServedLevel:
    """MLP^(l)(x) = (W2 + D2) silu((W1 + D1) x) of every row's own D (arXiv 2512.24695, Eq 70)."""

    def __init__(self, level: Level) -> None:
        subspace = level.config.online and level.config.delta == "subspace"
        self.online = level.config.online
        self._full = self.online and not subspace
        self._inner = _stacked(level.inner, level.inner_projection if subspace else None)
        self._outer = _stacked(level.outer, level.outer_projection if subspace else None)

    def weights(self) -> list[Tensor]:
        """The shared matrices."""
        return [self._inner.stacked, self._outer.stacked]

    def run(self, x: Tensor, batch: Batch, delta: Delta | None) -> Tensor:
        """x: [N, d] to [N, d]. ``delta``: the level's pools, [S, F, r] and [S, d, r]; None reads it as trained."""
        reads = delta if batch.reads_memory else None
        hidden = F.silu(self._product(x, self._inner, batch, reads and reads.inner))
        return self._product(hidden, self._outer, batch, reads and reads.outer)

    def _product(self, x: Tensor, matrix: _Matrix, batch: Batch, delta: Tensor | None) -> Tensor:
        if delta is None:
            return F.linear(x, matrix.stacked[: matrix.width])
        if self._full:
            return F.linear(x, matrix.stacked) + _learned(x, delta, batch)
        if x.is_cuda:
            y = F.linear(x, matrix.stacked[: matrix.width])
            return cms_delta(y, x, delta, matrix.stacked[matrix.width :], batch.memory_slots, batch.starts)
        both = F.linear(x, matrix.stacked)
        return both[:, : matrix.width] + _learned(both[:, matrix.width :], delta, batch)


def _stacked(weight: Tensor, projection: Tensor | None) -> _Matrix:
    stacked = weight if projection is None else torch.cat([weight, projection])
    return _Matrix(stacked.detach(), len(weight))


def _learned(projected: Tensor, delta: Tensor, batch: Batch) -> Tensor:
    """B p of each row's own B; slot 0 has learned nothing."""
    own = delta[batch.memory_slots.long()].to(projected.dtype)
    if batch.starts is None:
        return torch.bmm(own, projected[:, :, None])[:, :, 0]
    runs = pairwise(batch.starts.tolist())
    return torch.cat([projected[begin:end] @ own[b].mT for b, (begin, end) in enumerate(runs)])
