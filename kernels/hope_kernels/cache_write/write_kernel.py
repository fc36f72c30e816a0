# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""A row's queries and keys turned to its position, its keys and values into its slot."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def loaded(qkv_ptr, bias_ptr, at, inside, BIASED: tl.constexpr):
    """Numbers of a row with their bias, fp32."""
    x = tl.load(qkv_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if BIASED:
        x += tl.load(bias_ptr + at, mask=inside, other=0.0).to(tl.float32)
    return x


@triton.jit(do_not_specialize=["positions", "num_slots"])
def write_kernel(
    qkv_ptr,
    positions_ptr,
    slots_ptr,
    cos_ptr,
    sin_ptr,
    keys_ptr,
    values_ptr,
    bias_ptr,
    query_ptr,
    positions,
    num_slots,
    qkv_stride,
    keys_stride,
    values_stride,
    HEADS: tl.constexpr,
    READERS: tl.constexpr,
    HALF: tl.constexpr,
    WIDE: tl.constexpr,
    ROUND: tl.constexpr,
    BIASED: tl.constexpr,
):
    """One program a (row, ROUND of its heads): first the READERS query heads, then HEADS key heads, then the values.

    query: [N, Hq, D] contiguous. ``positions``: the lesser of T and the tables' height.
    """
    rounds: tl.constexpr = (READERS + 2 * HEADS + ROUND - 1) // ROUND
    row = (tl.program_id(0) // rounds).to(tl.int64)
    head = tl.program_id(0) % rounds * ROUND + tl.arange(0, ROUND)
    i = tl.arange(0, WIDE)
    position = tl.load(positions_ptr + row).to(tl.int64)
    slot = tl.load(slots_ptr + row).to(tl.int64)
    found = (slot >= 0) & (slot < num_slots) & (position >= 0) & (position < positions)
    inside = (head < READERS + 2 * HEADS)[:, None] & (i < HALF)[None, :]
    at = head[:, None] * (2 * HALF) + i[None, :]
    qkv_ptr += row * qkv_stride
    first = loaded(qkv_ptr, bias_ptr, at, inside, BIASED)
    second = loaded(qkv_ptr, bias_ptr, at + HALF, inside, BIASED)
    cos = tl.load(cos_ptr + position * HALF + i, mask=(i < HALF) & found, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + position * HALF + i, mask=(i < HALF) & found, other=0.0).to(tl.float32)[None, :]
    turned = first * cos - second * sin
    other = second * cos + first * sin
    lost = tl.where(found, 0.0, float("nan"))
    reads = inside & (head < READERS)[:, None]
    to = query_ptr + row * (READERS * 2 * HALF) + at
    tl.store(to, tl.where(found & (slot > 0), turned, lost).to(query_ptr.dtype.element_ty), mask=reads)
    tl.store(to + HALF, tl.where(found & (slot > 0), other, lost).to(query_ptr.dtype.element_ty), mask=reads)
    owned = inside & found & (slot > 0)
    key = owned & ((head >= READERS) & (head < READERS + HEADS))[:, None]
    to = keys_ptr + slot * keys_stride + position * (HEADS * 2 * HALF) + at - READERS * 2 * HALF
    tl.store(to, turned.to(keys_ptr.dtype.element_ty), mask=key)
    tl.store(to + HALF, other.to(keys_ptr.dtype.element_ty), mask=key)
    value = owned & (head >= READERS + HEADS)[:, None]
    to = values_ptr + slot * values_stride + position * (HEADS * 2 * HALF) + at - (READERS + HEADS) * 2 * HALF
    tl.store(to, first.to(values_ptr.dtype.element_ty), mask=value)
    tl.store(to + HALF, second.to(values_ptr.dtype.element_ty), mask=value)
