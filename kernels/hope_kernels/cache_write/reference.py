"""Rotary positions and the writing of keys and values in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.pool import working_dtype


def cache_write_reference(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Arguments as ``cache_write``; differentiable in qkv and bias."""
    wide, (heads, size) = working_dtype(qkv), keys.shape[2:]
    rows = qkv.to(wide) if bias is None else qkv.to(wide) + bias.to(wide)
    split = rows.view(len(qkv), -1, size)
    owned, at = slots > 0, positions.long()
    turned = _turned(split[:, :-heads], cos[at].to(wide)[:, None], sin[at].to(wide)[:, None])
    place = (slots[owned].long(), at[owned])
    keys[place] = turned[owned, -heads:].detach().to(keys.dtype)
    values[place] = split[owned, -heads:].detach().to(values.dtype)
    query = turned[:, :-heads].to(qkv.dtype)
    return torch.where(owned[:, None, None], query, 0.0)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [N, H, D] by the angles [N, 1, D / 2]: element i with element i + D / 2."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
