"""A CMS level as served: the shared matrices stacked over their projections, and what every slot has learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from hope_kernels.cms_delta.op import cms_delta
from hope_kernels.cms_delta.projected_op import cms_delta_projected
from torch import Tensor

from hope_serve.model.cms import Delta, Level
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.product import Shared, product


class _Matrix(NamedTuple):
    """W [d_out, d_in] over A [r, d_in], so that both products are one; r = 0 without a subspace."""

    stacked: Shared
    width: int


class ServedLevel:
    """MLP^(l)(x) = (W2 + D2) silu((W1 + D1) x) of every row's own D (arXiv 2512.24695, Eq 70)."""

    def __init__(self, level: Level) -> None:
        subspace = level.config.online and level.config.delta == "subspace"
        self.online = level.config.online
        self._full = self.online and not subspace
        self._inner = _stacked(level.inner, level.inner_projection if subspace else None)
        self._outer = _stacked(level.outer, level.outer_projection if subspace else None)

    def shared(self) -> list[Shared]:
        """The matrices that everybody's rows are multiplied by."""
        return [self._inner.stacked, self._outer.stacked]

    def run(self, x: Tensor, batch: Batch, delta: Delta | None) -> Tensor:
        """x: [N, d] to [N, d]. ``delta``: the level's pools, [S, F, r] and [S, d, r]; None reads it as trained."""
        reads = delta if batch.reads_memory else None
        hidden = self._product(x, self._inner, batch, reads and reads.inner, activation="silu")
        return self._product(hidden, self._outer, batch, reads and reads.outer, activation="none")

    def _product(self, x: Tensor, matrix: _Matrix, batch: Batch, delta: Tensor | None, *, activation: str) -> Tensor:
        if delta is None or self._full:
            y = product(x, matrix.stacked, height=matrix.width)
            if delta is not None:
                y = cms_delta(y, x, delta, None, batch.memory_slots, batch.starts)
            return F.silu(y) if activation == "silu" else y
        both = product(x, matrix.stacked)
        return cms_delta_projected(
            both, delta, batch.memory_slots, batch.starts, activation=activation, remembers=batch.remembers
        )


def _stacked(weight: Tensor, projection: Tensor | None) -> _Matrix:
    stacked = weight if projection is None else torch.cat([weight, projection])
    return _Matrix(Shared.of(stacked.detach()), len(weight))
