"""The width-4 causal convolution before Titans, over slots that each remember their last three inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.state import CONV_TAIL


def conv_silu(x: Tensor, tails: Tensor, kernel: Tensor, slots: Tensor, starts: Tensor | None) -> Tensor:
    """silu(sum_i kernel[:, i] x_{t-3+i}) of rows x [N, d]; the tails [S, 3, d] of the slots move on, in place."""
    index = slots.long()
    before = tails[index]
    if starts is None:
        joined = torch.cat([before, x[:, None]], 1)
        tails[index] = joined[:, 1:].detach()
        return F.silu((joined * kernel.mT).sum(1))
    begins, ends = starts[:-1].long(), starts[1:].long()
    rows = torch.arange(len(x), device=x.device)
    owners = torch.searchsorted(ends, rows, right=True)
    # Every sequence's tail and rows behind each other: row i of sequence b comes after b + 1 tails.
    joined = x.new_empty(len(x) + CONV_TAIL * len(slots), x.shape[1])
    here = rows + CONV_TAIL * (owners + 1)
    first = begins + CONV_TAIL * torch.arange(len(slots), device=x.device)
    past = first[:, None] + torch.arange(CONV_TAIL, device=x.device)
    joined = joined.index_copy(0, past.flatten(), before.flatten(0, 1)).index_copy(0, here, x)
    last = past + (ends - begins)[:, None]
    tails[index] = joined[last].detach()
    taps = [joined[here - CONV_TAIL + i] * kernel[:, i] for i in range(CONV_TAIL + 1)]
    return F.silu(torch.stack(taps).sum(0))
