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
    dtype, columns = y_and_p.dtype, delta.mT
    # Lists of few numbers are no operations of torch, as each number of a tensor would be.
    flags = None if remembers is None else remembers.tolist()
    y, p = y_and_p.split_with_sizes((delta.shape[1], delta.shape[2]), 1)
    count = y.shape[0]
    alone = count == 1
    rows = [
        torch.addmm(one_y, one_p, columns[slot].to(dtype)) if slot and (flags is None or flags[slot]) else one_y
        for slot, one_y, one_p in zip(
            slots.tolist(), [y] if alone else y.chunk(count), [p] if alone else p.chunk(count), strict=True
        )
    ]
    total = rows[0] if alone else torch.cat(rows)
    return F.silu(total) if activation == "silu" else total
