"""The one way in which a served model multiplies rows by its weights."""

from __future__ import annotations

import torch
from hope_kernels.few_rows_linear.op import few_rows_linear
from torch import Tensor


def product(x: Tensor, weight: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """x W^T of rows [..., K] and W [M, K], [..., M]; ``out_dtype`` None for that of x. See ``few_rows_linear``."""
    y = few_rows_linear(x.reshape(-1, x.shape[-1]), weight, out_dtype)
    return y.view(*x.shape[:-1], len(weight))
