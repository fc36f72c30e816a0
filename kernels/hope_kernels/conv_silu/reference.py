"""The causal depthwise convolution of width 4 and its activation, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.pool import working_dtype

WIDTH = 4
TAIL = WIDTH - 1


def conv_silu_reference(x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor, starts: Tensor | None) -> Tensor:
    """Arguments as ``conv_silu``; differentiable in x and kernel, any number of times."""
    if starts is None:
        return _one_row_each(x, tails, kernel, slots)
    bounds, rows = starts.tolist(), []
    for slot, begin, end in zip(slots.tolist(), bounds, bounds[1:], strict=False):
        if begin == end:
            continue
        before = tails[slot] if slot else torch.zeros_like(tails[0])
        joined = torch.cat([before.to(x.dtype), x[begin:end]])
        rows.append(_convolved(joined.unfold(0, WIDTH, 1), kernel))
        if slot:
            tails[slot] = joined[-TAIL:].detach().to(tails.dtype)
    return torch.cat(rows)


def _one_row_each(x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor) -> Tensor:
    if x.shape[0] == 1 and (slot := slots.tolist()[0]):
        tail = tails[slot]
        joined = torch.cat([tail.to(x.dtype), x])
        tail.copy_(joined.detach()[1:] if joined.requires_grad else joined[1:])
        return _convolved(joined.mT, kernel)[None]
    owned = slots > 0
    before = torch.where(owned[:, None, None], tails[slots.long()], 0.0)
    joined = torch.cat([before.to(x.dtype), x[:, None]], 1)
    tails[slots[owned].long()] = joined[owned, 1:].detach().to(tails.dtype)
    return _convolved(joined.mT, kernel)


def _convolved(taps: Tensor, kernel: Tensor) -> Tensor:
    """taps: [N, d, 4], oldest first; to [N, d]."""
    wide = working_dtype(taps)
    return F.silu((taps.to(wide) * kernel.to(wide)).sum(-1)).to(taps.dtype)
