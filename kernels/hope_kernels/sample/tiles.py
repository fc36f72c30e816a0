# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""A row of shaped logits in tiles: its values, their weights, and a place in a running sum."""

from __future__ import annotations

import triton
import triton.language as tl

LARGEST = tl.constexpr(3.4028234663852886e38)
LEAST_WEIGHT = tl.constexpr(2.0**-44)


@triton.jit
def tile_at(row_ptr, tile, V: tl.constexpr, BLOCK: tl.constexpr):
    """(ids, logits) of a tile; -inf past the vocabulary's end."""
    ids = tile * BLOCK + tl.arange(0, BLOCK)
    return ids, tl.load(row_ptr + ids, mask=ids < V, other=float("-inf"))


@triton.jit
def weights_of(x, peak, rate):
    """exp((x - peak) rate), 0 where it is less than the unit that draws count in."""
    weights = tl.exp(tl.maximum(x - peak, -LARGEST) * rate)
    return tl.where((x > float("-inf")) & (weights >= LEAST_WEIGHT), weights, 0.0)


@triton.jit
def locate(units, point, COLUMNS: tl.constexpr):
    """The first place whose sum with all before it exceeds ``point``; units: integers [n], whose whole sum does."""
    lines: tl.constexpr = units.shape[0] // COLUMNS
    table = tl.reshape(units, (lines, COLUMNS))
    sums = tl.sum(table, 1)
    before = tl.cumsum(sums, 0) <= point
    line = tl.sum(before.to(tl.int32), 0)
    chosen = tl.sum(tl.where((tl.arange(0, lines) == line)[:, None], table, 0), 0)
    reached = tl.sum(tl.where(before, sums, 0), 0) + tl.cumsum(chosen, 0)
    return line * COLUMNS + tl.sum((reached <= point).to(tl.int32), 0)


@triton.jit
def locate_tile(totals, point):
    """(the tile in which the running sum exceeds ``point``, what of ``point`` is left there); totals: one a tile."""
    reached = tl.cumsum(totals, 0)
    before = reached <= point
    return tl.sum(before.to(tl.int32), 0), point - tl.sum(tl.where(before, totals, 0), 0)
