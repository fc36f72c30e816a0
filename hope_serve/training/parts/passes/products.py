"""Matrix products of rows of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_serve.model.attention_ops import precise


def outer_sum(left: Tensor, right: Tensor) -> Tensor:
    """The sum over all tokens of left [N, T, a] times right [N, T, b], [a, b]."""
    return left.flatten(0, 1).mT @ right.flatten(0, 1)


def precise_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of three axes, summed and kept in at least 32 bits."""
    dtype = precise(left.dtype)
    if left.dtype == dtype or left.is_cpu:  # a CPU knows no product of mixed widths
        return left.to(dtype) @ right.to(dtype)
    return torch.bmm(left, right, out_dtype=dtype)


def grouped(x: Tensor, num_key_heads: int) -> Tensor:
    """[N, H, T, s] as [N K, (H / K) T, s]: the heads that share a key head stand below one another."""
    return x.reshape(x.shape[0] * num_key_heads, -1, x.shape[-1])


def heads_of(x: Tensor, size: int) -> Tensor:
    """[N, T, H e] as [N, H, T, e]."""
    return x.view(*x.shape[:2], -1, size).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    """[N, H, T, e] as [N, T, H e]."""
    return x.transpose(1, 2).flatten(2)
