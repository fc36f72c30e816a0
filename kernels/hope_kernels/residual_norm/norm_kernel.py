# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""A row's sum, its mean square and what it becomes, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def residual_norm_kernel(
    h_ptr,
    x_ptr,
    scale_ptr,
    total_ptr,
    y_ptr,
    h_stride,
    x_stride,
    eps,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    HAS_X: tl.constexpr,
):
    """total = h + x, y = total / rms(total) * scale; one program a row. total, y: [N, D] contiguous."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDE)
    inside = at < D
    h = tl.load(h_ptr + row * h_stride + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_X:
        x = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
        total = (h + x).to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + row * D + at, total, mask=inside)
        h = total.to(tl.float32)
    shrink = tl.rsqrt(tl.sum(h * h, 0) / D + eps)
    tl.store(y_ptr + row * D + at, (h * shrink * scale).to(y_ptr.dtype.element_ty), mask=inside)
