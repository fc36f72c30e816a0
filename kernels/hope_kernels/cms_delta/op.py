"""The public face of the delta: refuse what is wrong, then the kernels or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_dense_rows, require_float, require_shape
from hope_kernels.cms_delta.reference import cms_delta_rows_reference
from hope_kernels.spans import spanned

KERNEL_RANK = 64


@spanned("deltas")
def cms_delta(
    y: Tensor,
    x: Tensor,
    delta: Tensor,
    projection: Tensor | None,
    slots: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """y_i += B (A x_i), in place, with B what the sequence of row i has learned.

    On a CUDA device subspace deltas of rank up to 64 run on kernels (README.md) that never wait for the host; full
    deltas and fp64 run the reference, which does. Differentiable in y, x, delta and projection: once on the kernels,
    any number of times in the reference.

    Args:
        y: [N, d_out], usually the shared matrix's output x W^T.
        x: [N, d_in], of y's dtype.
        delta: [S, d_out, r], a pool of B by slot, of any float dtype; a slice [:, layer] of a wider pool will do.
            [S, d_out, d_in] when ``projection`` is None.
        projection: A, [r, d_in], shared by all, of y's dtype; None for full deltas.
        slots: [B] int, the slot of each sequence; 0 has no memory, adds nothing and costs nothing. Sequences may
            share a slot. None: sequence b has slot b.
        cu_seqlens: [B + 1] int32, 0 first and N last: sequence b has rows cu_seqlens[b] to cu_seqlens[b + 1], none if
            they are equal. None: one row a sequence, B = N.

    Returns:
        y. On a CUDA device, whose tensors are not looked at from the host, rows of a slot that does not exist are NaN.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2512.24695, Eqs 70-71, with the delta in a subspace.
    """
    _require_rows(y, x)
    _require_delta(y, x, delta, projection)
    on_kernels = projection is not None and y.is_cuda and runs_on_kernels(x, delta)
    count = _require_runs(x, cu_seqlens, look=not on_kernels)
    require_owners(slots, count, delta, look=not on_kernels)
    if projection is None or not on_kernels:
        return cms_delta_rows_reference(y, x, delta, projection, slots, cu_seqlens)
    from hope_kernels.cms_delta.gradient import CmsDelta
    from hope_kernels.cms_delta.launch import launch_decode, launch_ragged

    if torch.is_grad_enabled() and any(t.requires_grad for t in (y, x, delta, projection)):
        if cu_seqlens is None:
            cu_seqlens = torch.arange(count + 1, dtype=torch.int32, device=x.device)
        return CmsDelta.apply(y, x, delta, projection, slots, cu_seqlens)  # type: ignore[no-any-return,no-untyped-call]
    if cu_seqlens is None:
        launch_decode(y, x, delta, projection, slots)
    else:
        launch_ragged(y, x @ projection.mT, delta, slots, cu_seqlens)
    return y


def runs_on_kernels(x: Tensor, delta: Tensor) -> bool:
    """Whether the kernels know this rank and these dtypes."""
    return delta.shape[2] <= KERNEL_RANK and x.element_size() <= 4 and delta.element_size() <= 4


def require_runs(argument: str, cu_seqlens: Tensor, rows: Tensor, *, look: bool) -> int:
    """The number of sequences; ValueError unless their runs cover ``rows``, [N, ...]. ``look``: at the values as well.

    Words are made only for what is refused: every layer of a step asks.
    """
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2:
        require(False, f"{argument}'s shape", tuple(cu_seqlens.shape), "[B + 1]")
    if cu_seqlens.dtype is not torch.int32:
        require(False, f"{argument}'s dtype", cu_seqlens.dtype, "int32")
    if cu_seqlens.device != rows.device:
        require(False, f"{argument}'s device", cu_seqlens.device, f"the rows', {rows.device}")
    if not cu_seqlens.is_contiguous():
        require(False, f"{argument}'s strides", cu_seqlens.stride(), "contiguous")
    if look:
        bounds = cu_seqlens.tolist()
        holds = bounds[0] == 0 and bounds[-1] == len(rows) and bounds == sorted(bounds)
        require(holds, argument, bounds, f"0 first, never falling, the number of rows, {len(rows)}, last")
    return len(cu_seqlens) - 1


def _require_rows(y: Tensor, x: Tensor) -> None:
    for argument, tensor, names in (("y", y, "[N, d_out]"), ("x", x, "[N, d_in]")):
        require(tensor.dim() == 2, f"{argument}'s shape", tuple(tensor.shape), names)
        require(tensor.numel() > 0, f"{argument}'s shape", tuple(tensor.shape), f"{names}, all at least 1")
        require_float(argument, tensor, x)
    require_shape("y", y, (len(x), y.shape[1]), "[N, d_out]")
    require(y.dtype is x.dtype, "y's dtype", y.dtype, f"x's, {x.dtype}")
    apart = len(y) == 1 or y.stride(0) >= y.shape[1]
    require(y.stride(1) == 1 and apart, "y's strides", y.stride(), "contiguous behind the first axis, rows apart")
    learns_in_place = torch.is_grad_enabled() and y.requires_grad and y.is_leaf
    require(not learns_in_place, "y", "a leaf that requires grad", "changed in place: the output of another operation")


def _require_delta(y: Tensor, x: Tensor, delta: Tensor, projection: Tensor | None) -> None:
    require(delta.dim() == 3 and delta.numel() > 0, "delta's shape", tuple(delta.shape), "[S, d_out, r]")
    require_float("delta", delta, x)
    require_dense_rows("delta", delta)
    d_in = x.shape[1]
    inner, names = (d_in, "[S, d_out, d_in]") if projection is None else (delta.shape[2], "[S, d_out, r]")
    require_shape("delta", delta, (len(delta), y.shape[1], inner), names)
    if projection is not None:
        require_shape("projection", projection, (inner, d_in), "[r, d_in]")
        require_float("projection", projection, x)
        require(projection.dtype is x.dtype, "projection's dtype", projection.dtype, f"x's, {x.dtype}")


def _require_runs(x: Tensor, cu_seqlens: Tensor | None, *, look: bool) -> int:
    """The number of sequences."""
    return len(x) if cu_seqlens is None else require_runs("cu_seqlens", cu_seqlens, x, look=look)


def require_owners(slots: Tensor | None, count: int, delta: Tensor, *, look: bool) -> None:
    """ValueError unless each of ``count`` sequences has a slot of the pool. ``look``: at the values as well."""
    if slots is None:
        require(
            count == len(delta), "the number of sequences", count, f"delta's first axis, {len(delta)}, without slots"
        )
        return
    require_shape("slots", slots, (count,), "[B]")
    require(slots.dtype in (torch.int32, torch.int64), "slots' dtype", slots.dtype, "int32 or int64")
    if slots.device != delta.device:
        require(False, "slots' device", slots.device, f"x's, {delta.device}")
    require(slots.is_contiguous(), "slots' strides", slots.stride(), "contiguous")
    if look:
        named = slots.tolist()
        low, high = min(named), max(named)
        if low < 0 or high >= len(delta):
            require(False, "slots", f"from {low} to {high}", f"0 (no memory) to {len(delta) - 1}")
