"""The product as torch's libraries compute it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.few_rows_linear.gradient import wants_gradient


def few_rows_linear_reference(x: Tensor, weight: Tensor, out_dtype: torch.dtype) -> Tensor:
    """Arguments as ``few_rows_linear``; differentiable throughout."""
    widens = x.itemsize == 2 and out_dtype is torch.float32 and weight.dtype is x.dtype
    if x.is_cuda and widens and not wants_gradient(x, weight):
        return torch.mm(x, weight.mT, out_dtype=torch.float32)
    return F.linear(x, weight).to(out_dtype)
