# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Parts of a softmax's sums become one."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit(do_not_specialize=["parts", "positions", "num_slots"])
def join_kernel(
    mixed_ptr,
    shares_ptr,
    slots_ptr,
    lengths_ptr,
    y_ptr,
    parts,
    positions,
    num_slots,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    PART: tl.constexpr,
    CHUNK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y [B, Hq, D] contiguous; one program a query head, CHUNK parts of PART positions at a time, in their order."""
    sequence, d = tl.program_id(0) // HEADS, tl.arange(0, WIDE)
    if OVERLAP:
        gdc_wait()
    slot = tl.load(slots_ptr + sequence)
    length = tl.load(lengths_ptr + sequence)
    found = (slot >= 0) & (slot < num_slots) & (length >= 0) & (length <= positions)
    count = tl.where(found & (slot > 0), tl.cdiv(length, PART), 0)
    base = tl.program_id(0).to(tl.int64) * parts
    top = tl.full((1,), float("-inf"), tl.float32)
    total = tl.zeros((1,), tl.float32)
    mixed = tl.zeros((WIDE,), tl.float32)
    for start in range(0, count, CHUNK):
        part = start + tl.arange(0, CHUNK)
        inside = part < count
        at = base + part
        score = tl.load(shares_ptr + at * 2, mask=inside, other=float("-inf"))
        share = tl.load(shares_ptr + at * 2 + 1, mask=inside, other=0.0)
        tile_at = mixed_ptr + at[:, None] * D + d[None, :]
        tile = tl.load(tile_at, mask=inside[:, None] & (d < D)[None, :], other=0.0)
        higher = tl.maximum(top, tl.max(score, 0))
        keep, weight = tl.exp2(top - higher), tl.exp2(score - higher)
        total = total * keep + tl.sum(weight * share, 0)
        mixed = mixed * keep + tl.sum(weight[:, None] * tile, 0)
        top = higher
    y = tl.where(found, mixed / tl.where(count > 0, total, 1.0), float("nan"))
    tl.store(y_ptr + tl.program_id(0).to(tl.int64) * D + d, y.to(y_ptr.dtype.element_ty), mask=d < D)
