"""The element-wise parts of Hope-Attention and their gradients.

Every gradient is written in differentiable operations, so that an outer gradient flows through it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def precise(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and softmaxes over values of ``dtype``: at least 32 bits."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of [N, heads, T, e]; with ``-sin`` its inverse."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def rms_norm_gradient(gradient: Tensor, x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """The gradient of ``x``, given that of ``rms_norm(x)``."""
    dtype = precise(x.dtype)
    wide, scaled = x.to(dtype), (gradient * scale).to(dtype)
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    along = (scaled * wide).mean(-1, keepdim=True) * inverse.square()
    return ((scaled - wide * along) * inverse).to(x.dtype)


def attention_shares(scores: Tensor, bias: Tensor, scale: float) -> Tensor:
    """softmax(scale scores + bias), summed in at least 32 bits."""
    return torch.softmax(scores * scale + bias, -1, dtype=precise(scores.dtype)).to(scores.dtype)


def attention_shares_gradient(gradient: Tensor, shares: Tensor, scale: float) -> Tensor:
    """The gradient of the scores, given that of their shares."""
    along = (gradient * shares).sum(-1, keepdim=True)
    return shares * (gradient - along) * scale


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) up, of both side by side."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def swiglu_gradient(gradient: Tensor, gate_up: Tensor) -> Tensor:
    """The gradient of gate and up side by side, given that of ``swiglu``."""
    gate, up = gate_up.chunk(2, -1)
    slope = torch.sigmoid(gate)
    active = gate * slope
    return torch.cat([gradient * up * (slope + active * (1 - slope)), gradient * active], -1)
