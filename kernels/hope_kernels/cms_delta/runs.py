# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Runs of rows cut into tiles that never cross from one sequence into the next."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of_run(cu_ptr, tile, count, rows, steps, ROWS: tl.constexpr):
    """(sequence, first row, end of the rows) of a tile; first row at or past the end when the tile is spare.

    Sequence b owns the tiles from cu[b] // ROWS + b on: at least as many as it needs, so that ``rows // ROWS + count``
    tiles are enough whatever the lengths, and the host need not know them. ``steps`` halvings find b.
    """
    low = tile * 0
    high = low + count
    for _ in range(steps):
        middle = (low + high) // 2
        below = tl.load(cu_ptr + middle) // ROWS + middle <= tile
        low = tl.where(below, middle, low)
        high = tl.where(below, high, middle)
    run = tl.load(cu_ptr + low).to(tl.int64)
    start = run + (tile - run // ROWS - low) * ROWS
    return low, start, tl.minimum(tl.load(cu_ptr + low + 1).to(tl.int64), rows)
