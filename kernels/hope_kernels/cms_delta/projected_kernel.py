# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Rows that come with their projections: the delta's product, the sum and the activation, out of place."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from hope_kernels.cms_delta.dot import full_dot
from hope_kernels.cms_delta.runs import tile_of_run


@triton.jit
def activated(y, SILU: tl.constexpr):
    """y, or silu(y)."""
    if SILU:
        y = y * tl.sigmoid(y)
    return y


@triton.jit
def owner(slots_ptr, remembers_ptr, sequence, num_slots, HAS_FLAGS: tl.constexpr):
    """(the slot, whether it exists, whether it has a memory)."""
    slot = tl.load(slots_ptr + sequence).to(tl.int64)
    exists = (slot >= 0) & (slot < num_slots)
    remembers = exists & (slot > 0)
    if HAS_FLAGS:
        remembers = remembers & (tl.load(remembers_ptr + slot, mask=remembers, other=0) != 0)
    return slot, exists, remembers


@triton.jit(do_not_specialize=["num_slots"])
def projected_decode_kernel(
    given_ptr,
    delta_ptr,
    slots_ptr,
    remembers_ptr,
    y_ptr,
    given_stride,
    delta_stride,
    num_slots,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    OUT: tl.constexpr,
    SILU: tl.constexpr,
    HAS_FLAGS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y[row] = act(given[row, :D_OUT] + B given[row, D_OUT:]); one program a (row, OUT of d_out). y: contiguous.

    With OVERLAP it starts while the product that makes ``given`` still runs: B is on its way before ``gdc_wait``.
    A row without a memory reads no B; one whose slot does not exist gets NaN.
    """
    blocks: tl.constexpr = (D_OUT + OUT - 1) // OUT
    row = (tl.program_id(0) // blocks).to(tl.int64)
    o = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    r = tl.arange(0, R)
    inside = o < D_OUT
    slot, exists, remembers = owner(slots_ptr, remembers_ptr, row, num_slots, HAS_FLAGS)
    tile_at = delta_ptr + slot * delta_stride + o[:, None] * RANK + r[None, :]
    wanted = (inside & remembers)[:, None] & (r < RANK)[None, :]
    tile = tl.load(tile_at, mask=wanted, other=0.0, eviction_policy="evict_first")
    if OVERLAP:
        gdc_wait()
    given_at = given_ptr + row * given_stride
    p = tl.load(given_at + D_OUT + r, mask=(r < RANK) & remembers, other=0.0).to(tl.float32)
    y = tl.load(given_at + o, mask=inside, other=0.0).to(tl.float32)
    y = activated(y + tl.sum(tile.to(tl.float32) * p[None, :], 1), SILU)
    y = tl.where(exists, y, float("nan"))
    tl.store(y_ptr + row * D_OUT + o, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "rows", "steps", "num_slots"])
def projected_ragged_kernel(
    given_ptr,
    delta_ptr,
    slots_ptr,
    remembers_ptr,
    starts_ptr,
    y_ptr,
    count,
    rows,
    steps,
    given_stride,
    delta_stride,
    num_slots,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    SAME: tl.constexpr,
    SILU: tl.constexpr,
    HAS_FLAGS: tl.constexpr,
):
    """The same for runs of rows; one program a (tile of ROWS, OUT of d_out)."""
    blocks: tl.constexpr = (D_OUT + OUT - 1) // OUT
    sequence, start, end = tile_of_run(starts_ptr, tl.program_id(0) // blocks, count, rows, steps, ROWS)
    if start >= end:
        return
    t = start + tl.arange(0, ROWS)
    o = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    r = tl.arange(0, R)
    inside = (t < end)[:, None] & (o < D_OUT)[None, :]
    slot, exists, remembers = owner(slots_ptr, remembers_ptr, sequence, num_slots, HAS_FLAGS)
    y = tl.load(given_ptr + t[:, None] * given_stride + o[None, :], mask=inside, other=0.0).to(tl.float32)
    if remembers:
        tile_at = delta_ptr + slot * delta_stride + o[:, None] * RANK + r[None, :]
        tile = tl.load(tile_at, mask=(o < D_OUT)[:, None] & (r < RANK)[None, :], other=0.0)
        p_at = given_ptr + t[:, None] * given_stride + D_OUT + r[None, :]
        p = tl.load(p_at, mask=(t < end)[:, None] & (r < RANK)[None, :], other=0.0)
        y = full_dot(p, tl.trans(tile), y, SAME)
    y = activated(y, SILU)
    y = tl.where(exists, y, float("nan"))
    tl.store(y_ptr + t[:, None] * D_OUT + o[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)
