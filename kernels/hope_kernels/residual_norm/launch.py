"""How the residual norm's kernels are launched."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.residual_norm.backward_kernel import residual_norm_backward_kernel
from hope_kernels.residual_norm.norm_kernel import residual_norm_kernel


def launch_residual_norm(
    h: Tensor, x: Tensor | None, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """``residual_norm`` on the kernel; arguments have been checked."""
    rows, width = h.shape
    h = h if h.stride(1) == 1 else h.contiguous()
    x = x if x is None or x.stride(1) == 1 else x.contiguous()
    total = h if x is None else torch.empty(rows, width, dtype=h.dtype, device=h.device)
    y = torch.empty(rows, width, dtype=dtype, device=h.device)
    wide = int(triton.next_power_of_2(width))
    residual_norm_kernel[(rows,)](
        h,
        x,
        scale.contiguous(),
        total,
        y,
        h.stride(0),
        0 if x is None else x.stride(0),
        eps,
        D=width,
        WIDE=wide,
        HAS_X=x is not None,
        num_warps=_warps(wide),
    )
    return total, y


def launch_residual_norm_backward(
    total: Tensor,
    scale: Tensor,
    by_total: Tensor | None,
    by_y: Tensor,
    eps: float,
    h_dtype: torch.dtype | None,
    x_dtype: torch.dtype | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of h and x in these dtypes, None where none is asked for, from those of the sum and of y."""
    rows, width = total.shape
    by_y = by_y if by_y.stride(1) == 1 else by_y.contiguous()
    by_total = by_total if by_total is None or by_total.stride(1) == 1 else by_total.contiguous()
    by_h, by_x = (
        None if dtype is None else torch.empty(rows, width, dtype=dtype, device=total.device)
        for dtype in (h_dtype, x_dtype)
    )
    wide = int(triton.next_power_of_2(width))
    residual_norm_backward_kernel[(rows,)](
        total.contiguous(),
        scale.contiguous(),
        by_total,
        by_y,
        by_h,
        by_x,
        0 if by_total is None else by_total.stride(0),
        by_y.stride(0),
        eps,
        D=width,
        WIDE=wide,
        num_warps=_warps(wide),
    )
    return by_h, by_x


def _warps(wide: int) -> int:
    """Eight numbers a thread: two loads of 16 bytes in fp32, one in 16 bits."""
    return min(16, max(1, wide // 256))
