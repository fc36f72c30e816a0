"""Causal attention of runs of tokens in plain torch, in blocks that lie at fixed positions of a sequence.

A block is computed whole however little of it is asked for: a token's bits do not depend on where its prompt was cut.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.pool import working_dtype

BLOCK = 32
"""Positions that are computed together, and to a multiple of which keys are padded."""


def attention_prefill_reference(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, starts: Tensor, pasts: Tensor, scale: float
) -> Tensor:
    """Arguments as ``attention_prefill``; differentiable in query, keys and values."""
    bounds, out = starts.tolist(), []
    for slot, past, begin, end in zip(slots.tolist(), pasts.tolist(), bounds, bounds[1:], strict=False):
        run = query[begin:end]
        if begin == end or not slot:
            out.append(torch.zeros_like(run))
            continue
        length = past + end - begin
        out.append(_read(run, _padded(keys[slot], length), _padded(values[slot], length), past, scale))
    return torch.cat(out)


def _padded(pool: Tensor, length: int) -> Tensor:
    """The first ``length`` positions [T, Hk, D] and zeros up to a whole block, as [Hk, P, D] in working precision."""
    kept = pool[:length].to(working_dtype(pool))
    zeros = kept.new_zeros(-length % BLOCK, *kept.shape[1:])
    return torch.cat([kept, zeros]).transpose(0, 1).contiguous()


def _read(run: Tensor, keys: Tensor, values: Tensor, past: int, scale: float) -> Tensor:
    """What the tokens ``run`` [n, Hq, D] at positions ``past`` on read of keys and values [Hk, P, D]."""
    length, parts = past + len(run), []
    for first in range(past // BLOCK * BLOCK, length, BLOCK):
        begin, end = max(first, past), min(first + BLOCK, length)
        rows = run.new_zeros(BLOCK, *run.shape[1:])
        rows = torch.cat([rows[: begin - first], run[begin - past : end - past], rows[end - first :]])
        whole = _read_block(rows, keys[:, : first + BLOCK], values[:, : first + BLOCK], first, scale)
        parts.append(whole[begin - first : end - first])
    return torch.cat(parts)


def _read_block(rows: Tensor, keys: Tensor, values: Tensor, first: int, scale: float) -> Tensor:
    """A block [BLOCK, Hq, D] at positions ``first`` on, over all keys up to its last position."""
    heads, size = keys.shape[0], keys.shape[2]
    grouped = rows.to(keys.dtype).view(BLOCK, heads, -1, size).permute(1, 2, 0, 3).reshape(heads, -1, size)
    scores = (grouped @ keys.mT * scale).view(heads, -1, BLOCK, keys.shape[1])
    at = torch.arange(keys.shape[1], device=rows.device)
    later = at[None, :] > first + torch.arange(BLOCK, device=rows.device)[:, None]
    shares = torch.softmax(scores.masked_fill(later, float("-inf")), -1)
    mixed = shares.view(heads, -1, keys.shape[1]) @ values
    return mixed.view(heads, -1, BLOCK, size).permute(2, 0, 1, 3).reshape(rows.shape).to(rows.dtype)
