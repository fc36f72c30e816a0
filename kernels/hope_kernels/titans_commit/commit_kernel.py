# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The slots whose ring is full, and their rings written into their matrices."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def due_kernel(
    slots_ptr, position_ptr, due_ptr, position_stride, num_slots, batch, C: tl.constexpr, BATCH: tl.constexpr
):
    """due = [how many, the slots with a full ring ...], int32; one program."""
    b = tl.arange(0, BATCH)
    slot = b.to(tl.int64)
    there = b < batch
    if slots_ptr is not None:
        slot = tl.load(slots_ptr + b, mask=there, other=0).to(tl.int64)
        there = there & (slot > 0) & (slot < num_slots)
    full = tl.load(position_ptr + slot * position_stride, mask=there, other=0) == C
    rank = tl.cumsum(full.to(tl.int32), 0)
    tl.store(due_ptr, tl.sum(full.to(tl.int32), 0))
    tl.store(due_ptr + rank, slot.to(tl.int32), mask=full)


@triton.jit
def tf32_part(x):
    """x with the mantissa that tf32 keeps, so that what is left out can be multiplied separately."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def exact_dot(a, b, A_IS_WIDE: tl.constexpr):
    """a @ b to fp32 on tf32 units; numbers of 16 bits in ``a`` fit into tf32 as they are."""
    b_high = tf32_part(b)
    if A_IS_WIDE:
        a_high = tf32_part(a)
        low = tl.dot(a - a_high, b_high, input_precision="tf32")
        low = tl.dot(a_high, b - b_high, acc=low, input_precision="tf32")
        return tl.dot(a_high, b_high, acc=low, input_precision="tf32")
    low = tl.dot(a, b - b_high, input_precision="tf32")
    return tl.dot(a, b_high, acc=low, input_precision="tf32")


@triton.jit
def commit_kernel(
    due_ptr,
    matrix_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    matrix_stride,
    ring_stride,
    gate_stride,
    position_stride,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """matrix <- g_C matrix - sum_s (g_C / g_s) k_s w_s^T, in place, once the open row is closed; empties the ring.

    Programs share out (slot, head) pairs; ROWS is C rounded up to what a dot takes.
    """
    d = tl.arange(0, D)
    s = tl.arange(0, ROWS)
    for item in range(tl.program_id(0), tl.load(due_ptr) * H, tl.num_programs(0)):
        h = item % H
        slot = tl.load(due_ptr + 1 + item // H).to(tl.int64)
        matrix = matrix_ptr + slot * matrix_stride + h * D * D
        ring = slot * ring_stride + h * C * D
        gate = gate_ptr + slot * gate_stride + h * C * 2
        decay = tl.load(gate + 2 * s + 1, mask=s < C, other=0.0)
        end = tl.load(gate + 2 * C - 1)
        eta = tl.load(gate + 2 * C - 2)
        before = tl.load(gate + 2 * C - 3) if C > 1 else 0.0
        row = s[:, None] * D + d[None, :]
        k = tl.load(ring_k_ptr + ring + row, mask=(s < C)[:, None], other=0.0).to(tl.float32)
        k_open = tl.load(ring_k_ptr + ring + (C - 1) * D + d).to(tl.float32)
        p = tl.load(ring_w_ptr + ring + (C - 1) * D + d).to(tl.float32)
        mix = tl.where(s < C - 1, tl.exp(before - decay) * tl.sum(k * k_open[None, :], 1), 0.0)
        left = tl.exp(end - decay)
        for start in tl.range(0, D, COLUMNS, num_stages=1):
            cols = start + tl.arange(0, COLUMNS)
            tile = matrix + d[:, None] * D + cols[None, :]
            old = tl.load(tile, eviction_policy="evict_first").to(tl.float32)
            w_at = ring_w_ptr + ring + s[:, None] * D + cols[None, :]
            w = tl.load(w_at, mask=(s < C)[:, None], other=0.0).to(tl.float32)
            p_cols = tl.load(ring_w_ptr + ring + (C - 1) * D + cols).to(tl.float32)
            k_cols = tl.load(ring_k_ptr + ring + (C - 1) * D + cols).to(tl.float32)
            closed = tl.sum(old * p[:, None], 0) + p_cols
            closed -= eta * (tl.exp(before) * k_cols + tl.sum(w * mix[:, None], 0))
            w = tl.where((s == C - 1)[:, None], closed[None, :], w) * -left[:, None]
            update = exact_dot(tl.trans(k), w, ring_k_ptr.dtype.element_ty == tl.float32)
            tl.store(tile, (tl.exp(end) * old + update).to(matrix_ptr.dtype.element_ty))
        tl.debug_barrier()
        nothing = tl.zeros((ROWS, D), ring_k_ptr.dtype.element_ty)
        tl.store(ring_k_ptr + ring + row, nothing, mask=(s < C)[:, None])
        tl.store(ring_w_ptr + ring + row, nothing, mask=(s < C)[:, None])
        tl.store(gate + 2 * s, tl.zeros((ROWS,), tl.float32), mask=s < C)
        tl.store(gate + 2 * s + 1, tl.zeros((ROWS,), tl.float32), mask=s < C)
        tl.store(position_ptr + slot * position_stride + h, 0)
