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
    bounds = range(len(y_and_p) + 1) if starts is None else starts.tolist()
    parts = []
    for slot, begin, end in zip(slots.tolist(), bounds, bounds[1:], strict=False):
        rows = y_and_p[begin:end].to(dtype)
        y, p = rows[:, :d_out], rows[:, d_out:]
        if slot and (remembers is None or remembers[slot]):
            y = y + cms_delta_reference(p[None], delta[slot].to(dtype)[None])[0]
        parts.append(y)
    total = torch.cat(parts)
    return (F.silu(total) if activation == "silu" else total).to(y_and_p.dtype)
