"""One level of the Continuum Memory System: an MLP whose matrices a user's delta may move."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from hope_kernels.cms_delta.reference import cms_delta_reference
from torch import Tensor, nn

from hope_serve.model.config import LevelConfig


class Delta(NamedTuple):
    """What one layer's level has learned, for each of B sequences.

    full: inner [B, F, d], outer [B, d, F]. subspace: inner [B, F, r], outer [B, d, r], to be read through the
    level's shared projections.
    """

    inner: Tensor
    outer: Tensor


class Level(nn.Module):
    """MLP^(l)(x) = (W2 + D2) silu((W1 + D1) x) (arXiv 2512.24695, Eq 70)."""

    def __init__(self, config: LevelConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        wide = config.hidden_size
        self.inner = nn.Parameter(torch.randn(wide, hidden_size) / math.sqrt(hidden_size))
        self.outer = nn.Parameter(torch.randn(hidden_size, wide) * 0.5 / math.sqrt(wide))
        if not config.online:
            return
        # One rate and one decay a matrix, both meta-learned: (inner, outer).
        self.log_rate = nn.Parameter(torch.full((2,), math.log(config.learning_rate)))
        self.decay_logit = nn.Parameter(torch.full((2,), math.log(config.decay / (1 - config.decay))))
        if config.delta == "subspace":
            self.inner_projection = nn.Parameter(_orthonormal(config.rank, hidden_size))
            self.outer_projection = nn.Parameter(_orthonormal(config.rank, wide))

    def drift(self, delta: Delta) -> Tensor:
        """Squared Frobenius norm of what ``delta`` (batch of one) adds to the level's matrices."""
        if self.config.delta == "full":
            return delta.inner.square().sum() + delta.outer.square().sum()
        pairs = ((delta.inner, self.inner_projection), (delta.outer, self.outer_projection))
        return torch.stack([((d @ (a @ a.mT)) * d).sum() for d, a in pairs]).sum()

    def forward(self, x: Tensor, delta: Delta | None = None) -> Tensor:
        """x: [N, T, d] to [N, T, d]. Consecutive sequences share a delta when N is a multiple of its batch.

        ``delta`` None is the level as trained.
        """
        if delta is None:
            return F.linear(F.silu(F.linear(x, self.inner)), self.outer)
        subspace = self.config.delta == "subspace"
        rows = x.reshape(delta.inner.shape[0], -1, x.shape[-1])
        hidden = F.silu(_learned_linear(rows, self.inner, delta.inner, self.inner_projection if subspace else None))
        out = _learned_linear(hidden, self.outer, delta.outer, self.outer_projection if subspace else None)
        return out.view_as(x)


def _learned_linear(x: Tensor, weight: Tensor, delta: Tensor, projection: Tensor | None) -> Tensor:
    """(W + D_b) x of sequence b, x [B, T, d_in] to [B, T, d_out]."""
    return F.linear(x, weight) + cms_delta_reference(x, delta, projection)


def _orthonormal(rank: int, width: int) -> Tensor:
    """Random orthonormal rows [rank, width]; rows of unit variance each when rank exceeds width."""
    if rank > width:
        return torch.randn(rank, width) / math.sqrt(width)
    basis: Tensor = torch.linalg.qr(torch.randn(width, rank))[0]
    return basis.T.contiguous()
