"""Gather, and at a chunk's end update, in plain torch."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from hope_kernels.cms_update.layout import LevelPools, Rows
from hope_kernels.pool import working_dtype


def sums_reference(rows: Rows) -> Tensor:
    """[B, L, d_out, r]: each sequence's G A^T, in working precision."""
    dtype = working_dtype(rows.grad)
    bounds = rows.cu_seqlens.tolist()
    grad, projected = rows.grad.to(dtype), rows.projected.to(dtype)
    runs = [slice(*pair) for pair in pairwise(bounds)]
    return torch.stack([grad[:, run].mT @ projected[:, run] for run in runs])


def cms_update_reference(
    pools: LevelPools,
    addition: Tensor | Rows,
    slots: Tensor | None,
    fired: Tensor,
    rate: Tensor,
    decay: Tensor,
    beta: float,
    scale: Tensor | None,
) -> None:
    """G <- G + scale g; where the chunk ended m <- beta m + G, delta <- decay delta - rate m, G <- 0.

    In place; arguments as ``cms_update``. Without momentum m is G.
    """
    dtype = working_dtype(pools.delta)
    every = torch.arange(len(fired), device=fired.device)
    used = every if slots is None else slots.nonzero()[:, 0]
    at = used if slots is None else slots[used].long()
    added = (sums_reference(addition) if isinstance(addition, Rows) else addition)[used].to(dtype)
    if scale is not None:
        added = scale[used].to(dtype)[:, None, None, None] * added
    gradient = pools.gradient[at].to(dtype) + added
    ends, due = fired[used], at[fired[used]]
    pools.gradient[at] = gradient.masked_fill(ends[:, None, None, None], 0.0).to(pools.gradient.dtype)
    step = gradient[ends]
    if pools.momentum is not None:
        step = beta * pools.momentum[due].to(dtype) + step
        pools.momentum[due] = step.to(pools.momentum.dtype)
    moved = decay.to(dtype)[:, None, None] * pools.delta[due].to(dtype) - rate.to(dtype)[:, None, None] * step
    pools.delta[due] = moved.to(pools.delta.dtype)
