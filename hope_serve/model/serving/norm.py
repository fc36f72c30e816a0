"""The residual stream's sum and its norm, together."""

from __future__ import annotations

import torch
from torch import Tensor


def residual_norm(h: Tensor, x: Tensor | None, scale: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(h + x, rms-normed and scaled in ``dtype``) of rows [N, d]; h stays fp32."""
    h = h if x is None else h + x
    return h, (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps) * scale).to(dtype)
