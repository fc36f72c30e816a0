"""What a sequence's delta adds when its rows have been projected already, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.cms_delta.reference import cms_delta_reference
from hope_kernels.pool import working_dtype


def cms_delta_projected_reference(
    y_and_p: Tensor, delta: Tensor, slots: Tensor, starts: Tensor | None, activation: str, remembers: Tensor | None
) -> Tensor:
    """Arguments as ``cms_delta_projected``; differentiable throughout."""
    dtype, d_out = working_dtype(y_and_p), delta.shape[1]
    if starts is None:
        return _one_row_each(y_and_p.to(dtype), delta, slots, activation, remembers).to(y_and_p.dtype)
    bounds = starts.tolist()
    parts = []
    for slot, begin, end in zip(slots.tolist(), bounds, bounds[1:], strict=False):
        rows = y_and_p[begin:end].to(dtype)
        y, p = rows[:, :d_out], rows[:, d_out:]
        if slot and (remembers is None or remembers[slot]):
            y = y + cms_delta_reference(p[None], delta[slot].to(dtype)[None])[0]
        parts.append(y)
    total = torch.cat(parts)
    return (F.silu(total) if activation == "silu" else total).to(y_and_p.dtype)


def _one_row_each(y_and_p: Tensor, delta: Tensor, slots: Tensor, activation: str, remembers: Tensor | None) -> Tensor:
    """Row by row from the pool itself, in the rows' working precision: no delta is copied for a neighbour's sake."""
    d_out, dtype = delta.shape[1], y_and_p.dtype
    named = slots.tolist()
    read = [bool(slot) for slot in named] if remembers is None else _flags(remembers, named)
    y, p = y_and_p[:, :d_out], y_and_p[:, d_out:]
    rows = [
        torch.addmv(y[i], delta[slot].to(dtype), p[i]) if reads else y[i]
        for i, (slot, reads) in enumerate(zip(named, read, strict=True))
    ]
    total = torch.stack(rows)
    return F.silu(total) if activation == "silu" else total


def _flags(remembers: Tensor, slots: list[int]) -> list[bool]:
    if len(slots) == 1:
        return [bool(slots[0]) and bool(remembers[slots[0]])]
    every = remembers.tolist()
    return [bool(slot) and bool(every[slot]) for slot in slots]
