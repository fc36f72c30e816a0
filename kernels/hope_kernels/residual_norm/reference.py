"""The sum and its norm in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hope_kernels.pool import working_dtype

FEW_ROWS = 16
"""Up to so many rows are a decode step's, whose time on a CPU is that of its operations, not of their numbers."""


def residual_norm_reference(
    h: Tensor, x: Tensor | None, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Arguments as ``residual_norm``; differentiable throughout."""
    wide = working_dtype(h)
    if eps > 0 and wide is h.dtype is dtype and _is_few(h, x, scale):
        return _of_few_rows(h if x is None else h + x, scale, eps)
    total = h if x is None else (h.to(wide) + x.to(wide)).to(h.dtype)
    return total, torch.rms_norm(total.to(wide), scale.shape, scale.to(wide), eps).to(dtype)


def _is_few(h: Tensor, x: Tensor | None, scale: Tensor) -> bool:
    """Whether these are few rows of one dtype on a CPU, and nobody asks for a gradient."""
    given = (h, scale) if x is None else (h, x, scale)
    alike = h.shape[0] <= FEW_ROWS and h.device.type == "cpu" and all(t.dtype is h.dtype for t in given)
    return alike and not (torch.is_grad_enabled() and any(t.requires_grad for t in given))


def _of_few_rows(total: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """In half the operations of torch's own form: the host takes the roots. Neighbours change no row."""
    width = total.shape[1]
    norms: list[float] = torch.linalg.vector_norm(total, dim=-1).tolist()
    factors = [1 / math.sqrt(norm * norm / width + eps) for norm in norms]
    y = total * scale
    if len(factors) == 1:
        return total, y.mul_(factors[0])
    return total, y.mul_(torch.tensor(factors, dtype=total.dtype)[:, None])
