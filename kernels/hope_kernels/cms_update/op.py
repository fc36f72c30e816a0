"""The public face of the update: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_dense_rows, require_float, require_shape, require_slots
from hope_kernels.cms_delta.op import KERNEL_RANK, require_runs
from hope_kernels.cms_update.layout import LevelPools, Rows
from hope_kernels.cms_update.reference import cms_update_reference


def cms_update(
    pools: LevelPools,
    addition: Tensor | Rows,
    slots: Tensor | None,
    fired: Tensor,
    rate: Tensor,
    decay: Tensor,
    *,
    beta: float | None = None,
    scale: Tensor | None = None,
) -> None:
    """Add a call's gradients to the open chunks, and update the deltas whose chunk ends here; all in place.

    G <- G + scale g. Where the chunk ended: m <- beta m + G, delta <- decay delta - rate m, G <- 0; the optimizer
    ``gd`` is m = G. So a delta is read and written once a chunk, whatever the calls that the chunk came in.

    On a CUDA device this is one kernel (README.md) that never waits for the host; fp64, and rows of a rank above
    64, run the reference, which does. Nothing here is differentiable.

    Args:
        pools: one matrix of a level, for every slot and L layers.
        addition: g of each sequence, [B, L, d_out, r] (or of full deltas' shape), or the ``Rows`` it is the sum of.
        slots: [B] int, the slot of each sequence, all different; 0 is passed over. None: sequence b has slot b.
        fired: [B] bool, the sequences whose chunk ends with these gradients.
        rate, decay: [L] fp32, eta of the matrix and what one update retains of the old delta, layer by layer.
        beta: momentum's retention in [0, 1); None when ``pools.momentum`` is None, and only then.
        scale: [B] fp32, a factor on each sequence's g, or None.

    Raises:
        ValueError: an argument does not fit. A CUDA tensor is not looked at from the host: a slot that does not
            exist changes nothing there, and stops the kernel under TRITON_DEBUG=1.

    Source: arXiv 2512.24695, Eq 71 and section 4.2, projected on the subspace of the delta.
    """
    _require_pools(pools, beta)
    count = _require_addition(pools, addition)
    like = pools.delta
    require_slots(slots, count, len(like), like)
    _require_vector("fired", fired, count, "[B]", torch.bool, like)
    wide = torch.float64 if like.dtype is torch.float64 else torch.float32
    for name, tensor in (("rate", rate), ("decay", decay)):
        _require_vector(name, tensor, like.shape[1], "[L]", wide, like)
    if scale is not None:
        _require_vector("scale", scale, count, "[B]", wide, like)
    if like.is_cuda and runs_on_kernels(pools, addition):
        from hope_kernels.cms_update.launch import Step, launch_rows, launch_sums

        step = Step(slots=slots, fired=fired, rate=rate, decay=decay, beta=beta or 0.0, scale=scale)
        if isinstance(addition, Rows):
            launch_rows(pools, addition, step)
        else:
            launch_sums(pools, addition, step)
        # Autograd sees torch's own writes only; a graph that still holds these pools must fail, not go wrong.
        torch.autograd.graph.increment_version(list(pools.tensors().values()))
    else:
        if slots is not None:
            require_slots(slots.cpu(), count, len(like), slots.cpu())
        cms_update_reference(pools, addition, slots, fired, rate, decay, beta or 0.0, scale)


def runs_on_kernels(pools: LevelPools, addition: Tensor | Rows) -> bool:
    """Whether the kernels know these dtypes, and this rank for rows."""
    given = (addition.grad, addition.projected) if isinstance(addition, Rows) else (addition,)
    narrow = all(t.element_size() <= 4 for t in (*pools.tensors().values(), *given))
    return narrow and not (isinstance(addition, Rows) and pools.delta.shape[3] > KERNEL_RANK)


def _require_pools(pools: LevelPools, beta: float | None) -> None:
    delta = pools.delta
    require(delta.dim() == 4 and delta.numel() > 0, "pools.delta's shape", tuple(delta.shape), "[S, L, d_out, r]")
    for name, tensor in pools.tensors().items():
        require_shape(f"pools.{name}", tensor, tuple(delta.shape), "pools.delta's")
        require_float(f"pools.{name}", tensor, delta)
        require_dense_rows(f"pools.{name}", tensor)
        require(not tensor.requires_grad, f"pools.{name}", "a tensor that requires grad", "without, to change in place")
    if pools.momentum is None:
        require(beta is None, "beta", beta, "None without pools.momentum")
    else:
        require(beta is not None and 0 <= beta < 1, "beta", beta, "in [0, 1) with pools.momentum")


def _require_addition(pools: LevelPools, addition: Tensor | Rows) -> int:
    """The number of sequences."""
    _, layers, d_out, rank = pools.delta.shape
    if not isinstance(addition, Rows):
        require(
            addition.dim() == 4 and len(addition) > 0, "addition's shape", tuple(addition.shape), "[B, L, d_out, r]"
        )
        require_shape("addition", addition, (len(addition), layers, d_out, rank), "[B, L, d_out, r]")
        require_float("addition", addition, pools.delta)
        require_dense_rows("addition", addition)
        return len(addition)
    grad, projected = addition.grad, addition.projected
    require(grad.dim() == 3 and grad.numel() > 0, "addition.grad's shape", tuple(grad.shape), "[L, N, d_out]")
    require_shape("addition.grad", grad, (layers, grad.shape[1], d_out), "[L, N, d_out]")
    require(grad.stride(2) == 1, "addition.grad's strides", grad.stride(), "contiguous along d_out")
    require_shape("addition.projected", projected, (layers, grad.shape[1], rank), "[L, N, r]")
    require(projected.is_contiguous(), "addition.projected's strides", projected.stride(), "contiguous")
    for name, tensor in (("grad", grad), ("projected", projected)):
        require_float(f"addition.{name}", tensor, pools.delta)
    require(projected.dtype is grad.dtype, "addition.projected's dtype", projected.dtype, f"grad's, {grad.dtype}")
    on_kernels = grad.is_cuda and runs_on_kernels(pools, addition)
    return require_runs("addition.cu_seqlens", addition.cu_seqlens, grad[0, :, 0], look=not on_kernels)


def _require_vector(name: str, tensor: Tensor, size: int, names: str, dtype: torch.dtype, like: Tensor) -> None:
    require_shape(name, tensor, (size,), names)
    require(tensor.dtype is dtype, f"{name}'s dtype", tensor.dtype, str(dtype).removeprefix("torch."))
    require(tensor.device == like.device, f"{name}'s device", tensor.device, f"the pools', {like.device}")
    require(tensor.is_contiguous(), f"{name}'s strides", tensor.stride(), "contiguous")
