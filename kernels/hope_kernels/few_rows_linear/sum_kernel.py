# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""One row times a matrix by sums: whole rows of the matrix wait in registers for what they are multiplied with."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit(do_not_specialize=["count"])
def sum_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    count,
    M,
    x_stride,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    ALONE: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y[n] = x[n] W^T for ``count`` rows; one program ROWS of the matrix, each a tile's row of WIDE. y: contiguous.

    With OVERLAP it starts while what makes ``x`` still runs: all of its matrix is on its way before ``gdc_wait``.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, WIDE)
    # Rows past the end are read from the last one instead, and not stored: a load without a mask is one instruction.
    tile_at = weight_ptr + tl.minimum(rows, M - 1).to(tl.int64)[:, None] * K + at[None, :]
    if WIDE == K:
        tile = tl.load(tile_at, eviction_policy="evict_first")
    else:
        tile = tl.load(tile_at, mask=(at < K)[None, :], other=0.0, eviction_policy="evict_first")
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    if ALONE:
        store_sums(x_ptr, y_ptr, tile, rows, at, M, K, WIDE)
    else:
        for _ in range(count):
            store_sums(x_ptr, y_ptr, tile, rows, at, M, K, WIDE)
            x_ptr += x_stride
            y_ptr += M


@triton.jit
def store_sums(x_ptr, y_ptr, tile, rows, at, M, K: tl.constexpr, WIDE: tl.constexpr):
    """One row of x times the tile, into its row of y."""
    if WIDE == K:
        x = tl.load(x_ptr + at, eviction_policy="evict_last")
    else:
        x = tl.load(x_ptr + at, mask=at < K, other=0.0, eviction_policy="evict_last")
    y = tl.sum(tile.to(tl.float32) * x.to(tl.float32)[None, :], 1)
    tl.store(y_ptr + rows, y.to(y_ptr.dtype.element_ty), mask=rows < M)
