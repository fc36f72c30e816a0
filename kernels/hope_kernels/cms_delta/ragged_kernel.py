# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Runs of rows: the product with each run's delta, and the same product backwards."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.cms_delta.dot import full_dot
from hope_kernels.cms_delta.runs import tile_of_run


@triton.jit(do_not_specialize=["count", "rows", "steps", "num_slots"])
def ragged_kernel(
    y_ptr,
    projected_ptr,
    delta_ptr,
    slots_ptr,
    cu_ptr,
    count,
    rows,
    steps,
    y_stride,
    delta_stride,
    num_slots,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    ROWS: tl.constexpr,
    OUT: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    SAME: tl.constexpr,
):
    """y[t] += B projected[t] for the rows of every run; one program a (tile of ROWS, OUT of d_out).

    Rows of the null slot are left as they are; those of a slot that does not exist get NaN.
    """
    blocks: tl.constexpr = (D_OUT + OUT - 1) // OUT
    sequence, start, end = tile_of_run(cu_ptr, tl.program_id(0) // blocks, count, rows, steps, ROWS)
    if start >= end:
        return
    t = start + tl.arange(0, ROWS)
    o = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    r = tl.arange(0, R)
    y_at = y_ptr + t[:, None] * y_stride + o[None, :]
    inside = (t < end)[:, None] & (o < D_OUT)[None, :]
    slot = sequence.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + sequence).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            if slot != 0:
                tl.store(y_at, tl.full((ROWS, OUT), float("nan"), y_ptr.dtype.element_ty), mask=inside)
            return
    y = tl.load(y_at, mask=inside, other=0.0)
    tile_at = delta_ptr + slot * delta_stride + o[:, None] * RANK + r[None, :]
    tile = tl.load(tile_at, mask=(o < D_OUT)[:, None] & (r < RANK)[None, :], other=0.0)
    p_at = projected_ptr + t[:, None] * RANK + r[None, :]
    p = tl.load(p_at, mask=(t < end)[:, None] & (r < RANK)[None, :], other=0.0)
    learned = full_dot(p, tl.trans(tile), tl.zeros((ROWS, OUT), tl.float32), SAME)
    tl.store(y_at, (y.to(tl.float32) + learned).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "rows", "steps", "num_slots"])
def backward_kernel(
    grad_ptr,
    partial_ptr,
    delta_ptr,
    slots_ptr,
    cu_ptr,
    count,
    rows,
    steps,
    grad_stride,
    delta_stride,
    num_slots,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    SPAN: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    SAME: tl.constexpr,
):
    """partial[s, t] = grad[t] B over the s-th SPAN of d_out, fp32 [D_OUT / SPAN, rows, RANK].

    One program a (tile of ROWS, span). Rows without a memory are left as they are, zero.
    """
    sequence, start, end = tile_of_run(cu_ptr, tl.program_id(0), count, rows, steps, ROWS)
    if start >= end:
        return
    t = start + tl.arange(0, ROWS)
    r = tl.arange(0, R)
    slot = sequence.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + sequence).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            return
    acc = tl.zeros((ROWS, R), tl.float32)
    first = tl.program_id(1) * SPAN
    for offset in tl.range(first, first + SPAN, DEPTH, num_stages=STAGES):
        o = offset + tl.arange(0, DEPTH)
        grad_at = grad_ptr + t[:, None] * grad_stride + o[None, :]
        grad = tl.load(grad_at, mask=(t < end)[:, None] & (o < D_OUT)[None, :], other=0.0)
        tile_at = delta_ptr + slot * delta_stride + o[:, None] * RANK + r[None, :]
        tile = tl.load(tile_at, mask=(o < D_OUT)[:, None] & (r < RANK)[None, :], other=0.0)
        acc = full_dot(grad, tile, acc, SAME)
    at = (tl.program_id(1).to(tl.int64) * rows + t[:, None]) * RANK + r[None, :]
    tl.store(partial_ptr + at, acc, mask=(t < end)[:, None] & (r < RANK)[None, :])
