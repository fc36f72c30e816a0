"""The width-4 causal convolution before Titans, over slots that each remember their last three inputs."""

from __future__ import annotations

from itertools import pairwise

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
    out = []
    for b, (begin, end) in enumerate(pairwise(starts.tolist())):
        joined = torch.cat([before[b], x[begin:end]])
        tails[index[b]] = joined[-CONV_TAIL:].detach()
        out.append(sum(joined[i : i + end - begin] * kernel[:, i] for i in range(CONV_TAIL + 1)))
    return F.silu(torch.cat(out))
