"""The sum and its norm in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.pool import working_dtype


def residual_norm_reference(
    h: Tensor, x: Tensor | None, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Arguments as ``residual_norm``; differentiable throughout."""
    wide = working_dtype(h)
    total = h if x is None else (h.to(wide) + x.to(wide)).to(h.dtype)
    return total, torch.rms_norm(total.to(wide), scale.shape, scale.to(wide), eps).to(dtype)
