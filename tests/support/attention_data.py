"""Pools of keys and values, runs over them, and what attention makes of them in fp64."""

from __future__ import annotations

import torch
import torch.nn.functional as F

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
TOLERANCE = {F32: 1e-5, F16: 2e-3, BF16: 1.2e-2}  # relative, by the dtype of rows and pools
SLOTS = 9


def ints(*numbers):
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


def starts_of(*lengths):
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)


def pools(positions, heads, size, dtype, layers=3):
    """Keys and values as two views of one pool of several layers, nobody's slot NaN."""
    whole = torch.randn(SLOTS, layers, 2, positions, heads, size, device=DEVICE).to(dtype)
    whole[0] = torch.nan
    return whole[:, 1, 0], whole[:, 1, 1]


def forget_after(keys, values, slot, length):
    """What was never written there is NaN."""
    keys[slot, length:], values[slot, length:] = torch.nan, torch.nan


def exact(query, keys, values, scale):
    """The last rows [n, Hq, D] of a sequence over its keys and values [P, Hk, D], by torch's own attention in fp64."""
    rows, past = len(query), len(keys) - len(query)
    seen = torch.ones(rows, len(keys), dtype=torch.bool, device=query.device).tril(past)
    heads = [t.double().transpose(0, 1)[None] for t in (query, keys, values)]
    mixed = F.scaled_dot_product_attention(*heads, attn_mask=seen, scale=scale, enable_gqa=True)
    return mixed[0].transpose(0, 1)
