# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What one token a sequence reads of a part of its positions, for all query heads that share a key head."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.cms_delta.dot import full_dot


@triton.jit(do_not_specialize=["count", "programs", "parts", "positions", "num_slots"])
def part_kernel(
    query_ptr,
    keys_ptr,
    values_ptr,
    slots_ptr,
    lengths_ptr,
    mixed_ptr,
    shares_ptr,
    count,
    programs,
    parts,
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
    BLOCK: tl.constexpr,
    EACH: tl.constexpr,
    STAGES: tl.constexpr,
    SAME: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Program (p, sequence, key head) takes parts p, p + programs, ... of EACH blocks of BLOCK positions.

    A part is summed from nothing, whichever program takes it: so no bit depends on how many there are. mixed:
    [B, Hq, parts, D] fp32, sums of values; shares: [B, Hq, parts, 2] fp32, the largest score (of base 2) and the sum
    they are to be divided by. ``scale`` is that of scores of base 2.
    """
    head = tl.program_id(0) % HEADS
    sequence = (tl.program_id(0) // HEADS) % count
    first = tl.program_id(0) // HEADS // count
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    slot = tl.load(slots_ptr + sequence).to(tl.int64)
    length = tl.load(lengths_ptr + sequence)
    if (slot <= 0) | (slot >= num_slots) | (length > positions):
        return
    mine = (tl.cdiv(length, BLOCK * EACH) - first + programs - 1) // programs
    row, d = tl.arange(0, 16), tl.arange(0, WIDE)
    query_at = (
        query_ptr + sequence.to(tl.int64) * query_stride + (head * GROUP + row)[:, None] * query_head + d[None, :]
    )
    query = tl.load(query_at, mask=(row < GROUP)[:, None] & (d < D)[None, :], other=0.0)
    keys_ptr += slot * keys_stride + head * D
    values_ptr += slot * values_stride + head * D
    out = (sequence.to(tl.int64) * HEADS * GROUP + head * GROUP + row) * parts
    top = tl.full((16,), float("-inf"), tl.float32)
    total = tl.zeros((16,), tl.float32)
    mixed = tl.zeros((16, WIDE), tl.float32)
    for step in tl.range(0, mine * EACH, num_stages=STAGES):
        part = first + step // EACH * programs
        at = (part * EACH + step % EACH) * BLOCK + tl.arange(0, BLOCK)
        inside = (at < length)[:, None] if WIDE == D else (at < length)[:, None] & (d < D)[None, :]
        offset = at[:, None] * (HEADS * D) + d[None, :]
        key = tl.load(keys_ptr + offset, mask=inside, other=0.0)
        value = tl.load(values_ptr + offset, mask=inside, other=0.0)
        score = full_dot(query, tl.trans(key), tl.zeros((16, BLOCK), tl.float32), SAME)
        score = tl.where((at < length)[None, :], score * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        keep, share = tl.exp2(top - higher), tl.exp2(score - higher[:, None])
        total = total * keep + tl.sum(share, 1)
        mixed = full_dot(share.to(value.dtype), value, mixed * keep[:, None], SAME)
        top = higher
        if step % EACH == EACH - 1:
            to = out + part
            tl.store(shares_ptr + to * 2, top, mask=row < GROUP)
            tl.store(shares_ptr + to * 2 + 1, total, mask=row < GROUP)
            tl.store(mixed_ptr + to[:, None] * D + d[None, :], mixed, mask=(row < GROUP)[:, None] & (d < D)[None, :])
            top = tl.full((16,), float("-inf"), tl.float32)
            total = tl.zeros((16,), tl.float32)
            mixed = tl.zeros((16, WIDE), tl.float32)
