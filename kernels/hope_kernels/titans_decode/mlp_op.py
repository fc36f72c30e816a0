"""Decode of MLP memories: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_mlp_clock, require_mlp_weights, require_slots
from hope_kernels.layout import LinearState, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.pool import in_use, put, take, weights_in, working_dtype
from hope_kernels.titans_decode.mlp_reference import mlp_decode_reference

KERNEL_SIZES = (16, 32, 64, 128)
KERNEL_HIDDEN = (16, 32, 64, 128, 256, 512)
KERNEL_CHUNK = 64


def mlp_decode(
    x: Tensor,
    q: Tensor,
    weights: MlpWeights,
    rule: TitansRule,
    clocks: tuple[LinearState | MlpState, ...],
    slots: Tensor | None,
) -> Tensor:
    """``titans_decode`` for MLP memories, whose x and q have been checked.

    Raises:
        ValueError: an argument does not fit.
    """
    require_mlp_weights(weights, x)
    state = require_mlp_clock(clocks, weights, rule)
    require_slots(slots, len(x), len(state.inner), x)
    if x.is_cuda and runs_on_kernels(x, weights, state):
        from hope_kernels.titans_decode.mlp_launch import launch_mlp_decode

        return launch_mlp_decode(x, q, weights, rule, state, slots)
    return mlp_decode_slots_reference(x, q, weights, rule, state, slots)


def mlp_decode_slots_reference(
    x: Tensor, q: Tensor, weights: MlpWeights, rule: TitansRule, state: MlpState, slots: Tensor | None
) -> Tensor:
    """The reference on slots of a pool, computed in fp32 whatever the pool's dtype.

    A pool that is the batch and of that dtype is not copied.

    Raises:
        ValueError: a ring is full.
    """
    rows, used = in_use(slots, len(x), x)
    dtype = working_dtype(x)
    in_place = slots is None and state.inner.dtype is dtype and state.ring_k.dtype is dtype
    batch = state if in_place else take(state, used, dtype)
    full = used[(batch.position >= rule.chunk_size).any(1)]
    require(not len(full), "clocks[0]'s ring in slots", full.tolist(), "committed before the next token")
    out = torch.zeros_like(x)
    out[rows] = mlp_decode_reference(x[rows].to(dtype), q[rows].to(dtype), weights_in(weights, dtype), rule, batch).to(
        x.dtype
    )
    if not in_place:
        put(state, used, batch)
    return out


def runs_on_kernels(x: Tensor, weights: MlpWeights, state: MlpState) -> bool:
    """Whether the kernels know this shape and these dtypes."""
    hidden, size = weights.inner.shape[2:]
    narrow = all(t.element_size() <= 4 for t in (x, weights.inner, state.inner, state.ring_k))
    sizes = size in KERNEL_SIZES and hidden in KERNEL_HIDDEN and 4 * hidden >= size
    return sizes and state.ring_k.shape[2] <= KERNEL_CHUNK and narrow
