"""The public face of the product of a few rows: refuse what is wrong, then the kernel or torch's libraries."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import FLOATS, require, require_float
from hope_kernels.few_rows_linear.gradient import wants_gradient
from hope_kernels.few_rows_linear.reference import few_rows_linear_reference
from hope_kernels.spans import spanned

MAX_ROWS = 16
MAX_WIDTH = 8192
MAX_HEIGHT_OF_SEVERAL = 2560
"""Two rows or more times a taller matrix are quicker in torch's own product, by measurement on an H200 (README.md)."""


@spanned("projections")
def few_rows_linear(x: Tensor, weight: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """x W^T, summed in fp32.

    On a CUDA device one row, or up to 16 where W has no more than 2,560 rows, of up to 8,192 numbers in 16 bits or fp32
    like the weight, both with contiguous rows, run as one kernel that reads W once. More rows, other dtypes and
    strides, and whatever is differentiated run torch's own product, which may be asked for any number of rows.

    What a row becomes depends on its own numbers, W and whether it is alone, never on the rows beside it or on how
    many of 2 to 16 they are: the order of its sum is fixed by the shape of W, one order for a row alone and in fp32,
    another for several rows of 16 bits. Torch's own product promises nothing of this.

    The kernel asks for W without waiting for the kernel in front of it on the stream: W must not be what that one
    writes.

    Args:
        x: [N, K].
        weight: W, [M, K].
        out_dtype: of the result; None for that of x.

    Returns:
        [N, M], contiguous.

    Raises:
        ValueError: an argument does not fit.
    """
    require(x.dim() == 2, "x's shape", tuple(x.shape), "[N, K]")
    require(weight.dim() == 2, "weight's shape", tuple(weight.shape), "[M, K]")
    require(weight.shape[1] == x.shape[1], "weight's shape", tuple(weight.shape), f"[M, K] with K = {x.shape[1]}")
    for argument, tensor in (("x", x), ("weight", weight)):
        require_float(argument, tensor, x)
    require(weight.dtype is x.dtype, "weight's dtype", weight.dtype, f"x's, {x.dtype}")
    out_dtype = out_dtype or x.dtype
    require(out_dtype in FLOATS, "out_dtype", out_dtype, "a float of 16, 32 or 64 bits")
    if x.is_cuda and runs_on_kernel(x, weight, out_dtype):
        from hope_kernels.few_rows_linear.launch import launch_few_rows_linear

        return launch_few_rows_linear(x, weight, out_dtype)
    return few_rows_linear_reference(x, weight, out_dtype)


def runs_on_kernel(x: Tensor, weight: Tensor, out_dtype: torch.dtype) -> bool:
    """Whether the kernels know these sizes, dtypes and strides, and nobody asks for a gradient."""
    (rows, width), height = x.shape, len(weight)
    fits = 1 <= rows <= MAX_ROWS and 1 <= width <= MAX_WIDTH and height > 0
    fits &= rows == 1 or height <= MAX_HEIGHT_OF_SEVERAL
    known = x.itemsize <= 4 and out_dtype in (x.dtype, torch.float32)
    return fits and known and x.stride(1) == 1 and weight.is_contiguous() and not wants_gradient(x, weight)
