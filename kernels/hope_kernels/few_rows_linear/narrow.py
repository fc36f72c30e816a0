"""Weights of 16 bits on a CPU, for rows of fp32: half the bytes to read, and not one number rounded.

A matrix whose every number is one of fp16's, as a checkpoint in fp16 has them, is packed once into fp16 in the order
in which FBGEMM reads it; a product widens the numbers in registers and sums in fp32. So nothing of the result is
coarser than fp32's own, and only the order of a sum is another. The same rows together give the same bits; a row alone
and beside others does on processors with AVX-512, while others sum blocks of one or two rows in another order than
longer ones. Who wants the same bits whoever stands beside takes every row alone, as a deterministic engine does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_ROWS = 16
"""More rows are quicker with the wide matrix, by measurement."""
ENGINES = ("x86", "fbgemm")


def packed(weight: Tensor) -> Any | None:
    """W [M, K] in 16 bits; None where that would round a number, or this machine has no such product."""
    fits = weight.dtype is torch.float32 and weight.device.type == "cpu" and weight.dim() == 2
    if not fits or torch.backends.quantized.engine not in ENGINES:
        return None
    if not torch.equal(weight.half().float(), weight):
        return None
    return torch.ops.quantized.linear_prepack_fp16(weight, None)


def few_rows_narrow(x: Tensor, weight: Any) -> Tensor:
    """x W^T of [N, K] fp32 rows and a matrix that ``packed`` made, [N, M]."""
    y: Tensor = torch.ops.quantized.linear_dynamic_fp16.default(x, weight)
    return y
