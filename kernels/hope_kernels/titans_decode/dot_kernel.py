# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""A few fp32 vectors times a tile of 16 bits on matrix units, with nothing of fp32 given up."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def in_parts(asked, narrow: tl.constexpr):
    """Rows of a tile of 16 in 16 bits: what rounding takes from row m goes into row m + 8, so nothing is lost."""
    high = asked.to(narrow)
    return tl.where(tl.arange(0, 16)[:, None] < 8, high, (asked - high.to(tl.float32)).to(narrow))


@triton.jit
def store_rows(seen_ptr, tile, cols, ROWS: tl.constexpr, D: tl.constexpr):
    """Put ROWS of a product with ``in_parts`` behind the results, where each thread finds whole columns.

    A thread holds rows m and m + 8, so adding them moves nothing; shuffles for the rest cost more than this.
    """
    whole = tl.sum(tl.reshape(tile, (2, 8, tile.shape[1])), 0)
    m = tl.arange(0, 8)[:, None]
    tl.store(seen_ptr + (3 + m) * D + cols[None, :], whole, mask=m < ROWS)
    tl.debug_barrier()


@triton.jit
def load_row(seen_ptr, cols, ROW: tl.constexpr, D: tl.constexpr):
    """One of the rows that ``store_rows`` put there."""
    return tl.load(seen_ptr + (3 + ROW) * D + cols)
