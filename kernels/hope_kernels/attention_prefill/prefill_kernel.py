# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Causal attention of a tile of new tokens, for all query heads that share a key head."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.cms_delta.dot import full_dot
from hope_kernels.cms_delta.runs import tile_of_run


@triton.jit(do_not_specialize=["count", "rows", "steps", "positions", "num_slots"])
def prefill_kernel(
    query_ptr,
    keys_ptr,
    values_ptr,
    slots_ptr,
    starts_ptr,
    pasts_ptr,
    y_ptr,
    count,
    rows,
    steps,
    positions,
    num_slots,
    scale,
    query_stride,
    query_head,
    keys_stride,
    values_stride,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    SAME: tl.constexpr,
):
    """y: [N, Hq, D] contiguous; one program (tile of TOKENS, key head), its rows the tokens' GROUP query heads.

    Keys come in blocks of BLOCK that begin at position 0, and one that lies behind a row changes nothing of it: so no
    bit depends on which tokens share a tile. ``scale`` is that of scores of base 2. Late tiles, which read most, begin.
    """
    head = tl.program_id(0) % HEADS
    tile = (tl.num_programs(0) - 1 - tl.program_id(0)) // HEADS
    sequence, start, end = tile_of_run(starts_ptr, tile, count, rows, steps, TOKENS)
    if start >= end:
        return
    first = tl.load(starts_ptr + sequence).to(tl.int64)
    past = tl.load(pasts_ptr + sequence)
    slot = tl.load(slots_ptr + sequence).to(tl.int64)
    found = (slot >= 0) & (slot < num_slots) & (past >= 0) & (past + end - first <= positions)
    limit = tl.where(found & (slot > 0), past + tl.minimum(start + TOKENS, end) - first, 0).to(tl.int32)
    row, d = tl.arange(0, ROWS), tl.arange(0, WIDE)
    token = start + row // GROUP
    given = ((row < TOKENS * GROUP) & (token < end))[:, None] & (d < D)[None, :]
    here = (past + token - first).to(tl.int32)
    reader = head * GROUP + row % GROUP
    query_at = query_ptr + token[:, None] * query_stride + reader[:, None] * query_head + d[None, :]
    query = tl.load(query_at, mask=given, other=0.0)
    slot = tl.where(limit > 0, slot, 0)
    keys_ptr += slot * keys_stride + head * D
    values_ptr += slot * values_stride + head * D
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDE), tl.float32)
    for block in tl.range(0, limit, BLOCK, num_stages=STAGES):
        at = block + tl.arange(0, BLOCK)
        inside = (at < limit)[:, None] if WIDE == D else (at < limit)[:, None] & (d < D)[None, :]
        offset = at[:, None] * (HEADS * D) + d[None, :]
        key = tl.load(keys_ptr + offset, mask=inside, other=0.0)
        value = tl.load(values_ptr + offset, mask=inside, other=0.0)
        score = full_dot(query, tl.trans(key), tl.zeros((ROWS, BLOCK), tl.float32), SAME)
        score = tl.where(at[None, :] <= here[:, None], score * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        keep, share = tl.exp2(top - higher), tl.exp2(score - higher[:, None])
        total = total * keep + tl.sum(share, 1)
        mixed = full_dot(share.to(value.dtype), value, mixed * keep[:, None], SAME)
        top = higher
    y = tl.where(found, mixed / tl.where(limit > 0, total, 1.0)[:, None], float("nan"))
    y_at = y_ptr + (token[:, None] * (HEADS * GROUP) + reader[:, None]) * D + d[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=given)
