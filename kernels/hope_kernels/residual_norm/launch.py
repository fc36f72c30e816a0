"""How the residual norm's kernel is launched."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

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
        # Eight numbers a thread: two loads of 16 bytes in fp32, one in 16 bits.
        num_warps=min(16, max(1, wide // 256)),
    )
    return total, y
