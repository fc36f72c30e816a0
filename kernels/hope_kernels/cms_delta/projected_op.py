"""The public face of the delta over projected rows: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.arguments import require, require_dense_rows, require_float, require_shape
from hope_kernels.cms_delta.op import require_owners, require_runs, runs_on_kernels
from hope_kernels.cms_delta.projected_reference import cms_delta_projected_reference
from hope_kernels.spans import spanned

ACTIVATIONS = ("none", "silu")


@spanned("deltas")
def cms_delta_projected(
    y_and_p: Tensor,
    b_pool: Tensor,
    slots: Tensor,
    starts: Tensor | None = None,
    *,
    activation: str = "none",
    remembers: Tensor | None = None,
) -> Tensor:
    """act(y_i + B p_i), with B what the sequence of row i has learned; y and p come from one product, [W; A] x.

    On a CUDA device subspace deltas of rank up to 64 run as one kernel that never waits for the host, and are
    differentiable once, in the rows and the pool; fp64 and higher ranks run the reference.

    Args:
        y_and_p: [N, d_out + r], a shared matrix's output and behind it the rows' projections; not changed.
        b_pool: [S, d_out, r], a pool of B by slot, of any float dtype; a slice [:, layer] of a wider pool will do.
        slots: [B] int32 or int64, the slot of each sequence; 0 has no memory and costs none of B's bytes. Sequences
            may share a slot.
        starts: [B + 1] int32, 0 first and N last: sequence b has rows starts[b] to starts[b + 1]. None: one row each.
        activation: "none", or "silu" of the sum.
        remembers: [S] uint8 or bool, 0 for slots whose B is not to be read; None reads every slot's but 0.

    Returns:
        [N, d_out] in the dtype of y_and_p. On a CUDA device rows of a slot that does not exist are NaN.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 70-71, with the delta in a subspace.
    """
    require(activation in ACTIVATIONS, "activation", repr(activation), " or ".join(ACTIVATIONS))
    _require_rows(y_and_p, b_pool)
    _require_flags(remembers, b_pool)
    on_kernels = y_and_p.is_cuda and runs_on_kernels(y_and_p, b_pool)
    count = len(y_and_p) if starts is None else require_runs("starts", starts, y_and_p, look=not on_kernels)
    require_owners(slots, count, b_pool, look=not on_kernels)
    if not on_kernels:
        return cms_delta_projected_reference(y_and_p, b_pool, slots, starts, activation, remembers)
    from hope_kernels.cms_delta.projected_launch import launch_projected_decode, launch_projected_ragged

    rows = y_and_p if y_and_p.stride(1) == 1 else y_and_p.contiguous()
    if torch.is_grad_enabled() and (y_and_p.requires_grad or b_pool.requires_grad):
        return _differentiable(rows, b_pool, slots, starts, activation, remembers)
    if starts is None:
        return launch_projected_decode(rows, b_pool, slots, activation, remembers)
    return launch_projected_ragged(rows, b_pool, slots, starts, activation, remembers)


def _differentiable(
    rows: Tensor, b_pool: Tensor, slots: Tensor, starts: Tensor | None, activation: str, remembers: Tensor | None
) -> Tensor:
    from hope_kernels.cms_delta.projected_gradient import CmsDeltaProjected

    if starts is None:
        starts = torch.arange(len(rows) + 1, dtype=torch.int32, device=rows.device)
    if remembers is not None:
        slots = slots * remembers[slots.long().clamp(0, len(remembers) - 1)].bool()
    total: Tensor = CmsDeltaProjected.apply(rows, b_pool, slots, starts)  # type: ignore[no-untyped-call]
    return F.silu(total) if activation == "silu" else total


def _require_rows(y_and_p: Tensor, b_pool: Tensor) -> None:
    if b_pool.dim() != 3 or b_pool.numel() == 0:
        require(False, "b_pool's shape", tuple(b_pool.shape), "[S, d_out, r]")
    if y_and_p.dim() != 2 or len(y_and_p) == 0:
        require(False, "y_and_p's shape", tuple(y_and_p.shape), "[N, d_out + r]")
    require_shape("y_and_p", y_and_p, (len(y_and_p), b_pool.shape[1] + b_pool.shape[2]), "[N, d_out + r]")
    for argument, tensor in (("y_and_p", y_and_p), ("b_pool", b_pool)):
        require_float(argument, tensor, y_and_p)
    require_dense_rows("b_pool", b_pool)


def _require_flags(remembers: Tensor | None, b_pool: Tensor) -> None:
    if remembers is None:
        return
    require_shape("remembers", remembers, (len(b_pool),), "[S]")
    require(remembers.dtype in (torch.uint8, torch.bool), "remembers's dtype", remembers.dtype, "uint8 or bool")
    require(remembers.device == b_pool.device, "remembers's device", remembers.device, f"b_pool's, {b_pool.device}")
    require(remembers.is_contiguous(), "remembers's strides", remembers.stride(), "contiguous")
