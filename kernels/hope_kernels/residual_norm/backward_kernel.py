# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The gradient of a row's sum, from those of the sum itself and of its norm, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def residual_norm_backward_kernel(
    total_ptr,
    scale_ptr,
    by_total_ptr,
    by_y_ptr,
    by_h_ptr,
    by_x_ptr,
    by_total_stride,
    by_y_stride,
    eps,
    D: tl.constexpr,
    WIDE: tl.constexpr,
):
    """by_h = by_total + shrink (g - total (g · total) shrink^2 / D), g = by_y scale; by_x is the same, rounded.

    One program a row. total, by_h, by_x: [N, D] contiguous; by_total, by_h and by_x may be absent.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    inside = at < D
    total = tl.load(total_ptr + row * D + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + at, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(by_y_ptr + row * by_y_stride + at, mask=inside, other=0.0).to(tl.float32) * scale
    shrink = tl.rsqrt(tl.sum(total * total, 0) / D + eps)
    along = tl.sum(grad * total, 0) / D * shrink * shrink
    by = (grad - total * along) * shrink
    if by_total_ptr is not None:
        by += tl.load(by_total_ptr + row * by_total_stride + at, mask=inside, other=0.0).to(tl.float32)
    if by_h_ptr is not None:
        tl.store(by_h_ptr + row * D + at, by.to(by_h_ptr.dtype.element_ty), mask=inside)
    if by_x_ptr is not None:
        tl.store(by_x_ptr + row * D + at, by.to(by_x_ptr.dtype.element_ty), mask=inside)
