# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""G A^T of every run: the sum of its rows' outer products with their projections."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.cms_delta.dot import full_dot


@triton.jit
def outer_sum(
    grad_ptr,
    projected_ptr,
    start,
    end,
    o,
    r,
    grad_stride,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    SAME: tl.constexpr,
):
    """sum over rows t of [start, end) of grad[t, o] projected[t, r], fp32 [len(o), len(r)]; 0 of an empty run."""
    acc = tl.zeros((o.shape[0], r.shape[0]), tl.float32)
    for first in tl.range(start, end, ROWS, num_stages=STAGES):
        t = first + tl.arange(0, ROWS)
        grad_at = grad_ptr + t[:, None].to(tl.int64) * grad_stride + o[None, :]
        grad = tl.load(grad_at, mask=(t < end)[:, None] & (o < D_OUT)[None, :], other=0.0)
        p_at = projected_ptr + t[:, None].to(tl.int64) * RANK + r[None, :]
        p = tl.load(p_at, mask=(t < end)[:, None] & (r < RANK)[None, :], other=0.0)
        acc = full_dot(tl.trans(grad), p, acc, SAME)
    return acc


@triton.jit(do_not_specialize=["rows", "num_slots"])
def sum_kernel(
    grad_ptr,
    projected_ptr,
    cu_ptr,
    slots_ptr,
    sums_ptr,
    rows,
    grad_stride,
    num_slots,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    SAME: tl.constexpr,
):
    """sums[b] = sum over the rows t of run b of grad[t] projected[t]^T, [B, D_OUT, RANK]; zero without a memory.

    One program a (run, OUT of d_out).
    """
    blocks: tl.constexpr = (D_OUT + OUT - 1) // OUT
    sequence = tl.program_id(0) // blocks
    o = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    r = tl.arange(0, R)
    start = tl.load(cu_ptr + sequence).to(tl.int32)
    end = tl.minimum(tl.load(cu_ptr + sequence + 1).to(tl.int32), rows)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + sequence).to(tl.int64)
        end = tl.where((slot > 0) & (slot < num_slots), end, start)
    acc = outer_sum(grad_ptr, projected_ptr, start, end, o, r, grad_stride, D_OUT, RANK, ROWS, STAGES, SAME)
    at = sums_ptr + sequence.to(tl.int64) * D_OUT * RANK + o[:, None] * RANK + r[None, :]
    tl.store(at, acc.to(sums_ptr.dtype.element_ty), mask=(o < D_OUT)[:, None] & (r < RANK)[None, :])
