# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The likeliest tokens of every row: the best of each tile, then the best of those."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.sample.order import NOTHING, id_of, ranked, value_of


@triton.jit
def top_of_tile_kernel(
    logits_ptr, slots_ptr, best_ptr, logits_stride, V: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr
):
    """best: [B, tiles, TOP] int64, the ranks of each tile's TOP highest logits; one program a (row, BLOCK of V)."""
    tiles: tl.constexpr = (V + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // tiles).to(tl.int64)
    if tl.load(slots_ptr + row) == 0:
        return
    ids = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * logits_stride + ids, mask=ids < V, other=0.0).to(tl.float32)
    ranks = tl.where(ids < V, ranked(x, ids), NOTHING)
    at = best_ptr + tl.program_id(0).to(tl.int64) * TOP
    for n in range(TOP):
        best = tl.max(ranks, 0)
        tl.store(at + n, best)
        ranks = tl.where(ranks == best, NOTHING, ranks)


@triton.jit
def top_kernel(
    best_ptr,
    slots_ptr,
    logsum_ptr,
    ids_ptr,
    logprobs_ptr,
    FOUND: tl.constexpr,
    FOUND_WIDE: tl.constexpr,
    TOP: tl.constexpr,
):
    """ids, logprobs: [B, TOP] of the FOUND ranks of each row; one program a row. A row that is no number gets NaN."""
    row = tl.program_id(0).to(tl.int64)
    logsum = tl.load(logsum_ptr + row)
    if (tl.load(slots_ptr + row) == 0) | (logsum != logsum):
        for n in range(TOP):
            tl.store(ids_ptr + row * TOP + n, row * 0)
            tl.store(logprobs_ptr + row * TOP + n, logsum)
        return
    found = tl.arange(0, FOUND_WIDE)
    ranks = tl.load(best_ptr + row * FOUND + found, mask=found < FOUND, other=NOTHING)
    for n in range(TOP):
        best = tl.max(ranks, 0)
        tl.store(ids_ptr + row * TOP + n, id_of(best))
        tl.store(logprobs_ptr + row * TOP + n, value_of(best) - logsum)
        ranks = tl.where(ranks == best, NOTHING, ranks)
