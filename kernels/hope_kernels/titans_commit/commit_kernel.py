# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Full rings written into their matrices; every program finds its own work."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def full_rings(
    slots_ptr, position_ptr, position_stride, items, num_items, num_slots,
    H: tl.constexpr, C: tl.constexpr, HAS_SLOTS: tl.constexpr,
):  # fmt: skip
    """(slots, whether the ring is full) of (sequence, head) pairs, a vector or one; padding is never full."""
    there = items < num_items
    slots = (items // H).to(tl.int64)
    if HAS_SLOTS:
        slots = tl.load(slots_ptr + slots, mask=there, other=0).to(tl.int64)
        there = there & (slots > 0) & (slots < num_slots)
    return slots, tl.load(position_ptr + slots * position_stride + items % H, mask=there, other=0) == C


@triton.jit(do_not_specialize=["num_items", "num_slots"])
def commit_kernel(
    slots_ptr,
    matrix_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    matrix_stride,
    ring_stride,
    gate_stride,
    position_stride,
    num_items,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
    TRIES: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    NARROW: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Programs share out (sequence, head) pairs, at most TRIES each, and commit those whose ring is full.

    ROWS is C rounded up to what a dot takes.
    """
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    # All positions at once: at most tokens few rings are full, and a program without one should not ask in turn.
    tries = tl.program_id(0) + tl.num_programs(0) * tl.arange(0, TRIES)
    _, full = full_rings(slots_ptr, position_ptr, position_stride, tries, num_items, num_slots, H, C, HAS_SLOTS)
    if tl.sum(full.to(tl.int32), 0) == 0:
        return
    for attempt in tl.range(0, TRIES, num_stages=1):
        item = tl.program_id(0) + tl.num_programs(0) * attempt
        slot, due = full_rings(slots_ptr, position_ptr, position_stride, item, num_items, num_slots, H, C, HAS_SLOTS)
        if due:
            h = item % H
            gate = gate_ptr + slot * gate_stride + h * C * 2
            ring_k = ring_k_ptr + slot * ring_stride + h * C * D
            ring_w = ring_w_ptr + slot * ring_stride + h * C * D
            matrix = matrix_ptr + slot * matrix_stride + h * D * D
            if NARROW:
                commit_narrow(matrix, ring_k, ring_w, gate, D, C, ROWS, COLUMNS, STAGES)
            else:
                commit_wide(matrix, ring_k, ring_w, gate, D, C, ROWS, COLUMNS, STAGES)
            tl.debug_barrier()
            empty_ring(ring_k, ring_w, gate, D, C, ROWS)
            tl.store(position_ptr + slot * position_stride + h, 0)


@triton.jit
def commit_narrow(
    matrix, ring_k, ring_w, gate,
    D: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """matrix <- g_C matrix - sum_s (g_C / g_s) k_s w_s^T, in place, once the open row is closed.

    All are of one 16-bit type. What is fp32 goes into products as a sum of two numbers of that type, beside which the
    matrix's own rounding is coarse. Products with one vector are dots whose 16 rows are all that vector: every thread
    then holds the result where the outer product with k_C needs it, and nothing is summed across threads.
    """
    d = tl.arange(0, D)
    s = tl.arange(0, ROWS)
    there = s < C
    k = tl.load(ring_k + s[:, None] * D + d[None, :], mask=there[:, None], other=0.0)
    k_open = tl.load(ring_k + (C - 1) * D + d)
    p = same_rows(tl.load(ring_w + (C - 1) * D + d))
    decay = tl.load(gate + 2 * s + 1, mask=there, other=0.0)
    end = tl.load(gate + 2 * C - 1)
    eta = tl.load(gate + 2 * C - 2)
    before = tl.load(gate + 2 * C - 3) if C > 1 else 0.0
    kept = tl.exp(end)
    left = tl.where(s < C - 1, -tl.exp(end - decay), 0.0)
    write = tl.trans(k.to(tl.float32) * left[:, None])
    # What the ring adds to the closed row: the open row itself, the rows before it, and k_C.
    near = tl.dot(same_rows(k_open), tl.trans(k), tl.zeros((16, ROWS), tl.float32))
    mix = tl.where((s < C - 1)[None, :], -eta * tl.exp(before - decay)[None, :] * near, 0.0)
    mix = tl.where((s == C - 1)[None, :], 1.0, mix)
    direct = tl.where((s == C - 1)[None, :], -eta * tl.exp(before), tl.zeros((16, ROWS), tl.float32))
    k_open = tl.reshape(k_open.to(tl.float32), (D // 16, 16, 1))
    for start in tl.range(0, D, COLUMNS, num_stages=STAGES):
        cols = start + tl.arange(0, COLUMNS)
        tile = matrix + d[:, None] * D + cols[None, :]
        row = s[:, None] * D + cols[None, :]
        old = tl.load(tile, eviction_policy="evict_first")
        w = tl.load(ring_w + row, mask=there[:, None], other=0.0)
        k_part = tl.load(ring_k + row, mask=there[:, None], other=0.0)
        closed = dot_in_parts(mix, w, tl.zeros((16, COLUMNS), tl.float32))
        closed = dot_in_parts(direct, k_part, closed)
        closed = tl.dot(p, old, closed)
        new = dot_in_parts(write, w, kept * old.to(tl.float32))
        new = tl.reshape(new, (D // 16, 16, COLUMNS)) - k_open * closed[None, :, :]
        tl.store(tile, tl.reshape(new, (D, COLUMNS)).to(matrix.dtype.element_ty))


@triton.jit
def same_rows(vector):
    """[16, len(vector)], every row the vector."""
    return tl.broadcast_to(vector[None, :], (16, vector.shape[0]))


@triton.jit
def dot_in_parts(a, b, acc):
    """acc + a @ b on b's 16-bit units, a in fp32."""
    high = a.to(b.dtype)
    acc = tl.dot((a - high.to(tl.float32)).to(b.dtype), b, acc)
    return tl.dot(high, b, acc)


@triton.jit
def commit_wide(
    matrix, ring_k, ring_w, gate,
    D: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The same to fp32."""
    d = tl.arange(0, D)
    s = tl.arange(0, ROWS)
    there = s < C
    k = tl.load(ring_k + s[:, None] * D + d[None, :], mask=there[:, None], other=0.0).to(tl.float32)
    k_open = tl.load(ring_k + (C - 1) * D + d).to(tl.float32)
    p = tl.load(ring_w + (C - 1) * D + d).to(tl.float32)
    decay = tl.load(gate + 2 * s + 1, mask=there, other=0.0)
    end = tl.load(gate + 2 * C - 1)
    eta = tl.load(gate + 2 * C - 2)
    before = tl.load(gate + 2 * C - 3) if C > 1 else 0.0
    mix = tl.where(s < C - 1, tl.exp(before - decay) * tl.sum(k * k_open[None, :], 1), 0.0)
    left = tl.exp(end - decay)
    for start in tl.range(0, D, COLUMNS, num_stages=STAGES):
        cols = start + tl.arange(0, COLUMNS)
        tile = matrix + d[:, None] * D + cols[None, :]
        old = tl.load(tile, eviction_policy="evict_first").to(tl.float32)
        w_at = ring_w + s[:, None] * D + cols[None, :]
        w = tl.load(w_at, mask=there[:, None], other=0.0).to(tl.float32)
        p_cols = tl.load(ring_w + (C - 1) * D + cols).to(tl.float32)
        k_cols = tl.load(ring_k + (C - 1) * D + cols).to(tl.float32)
        closed = tl.sum(old * p[:, None], 0) + p_cols
        closed -= eta * (tl.exp(before) * k_cols + tl.sum(w * mix[:, None], 0))
        w = tl.where((s == C - 1)[:, None], closed[None, :], w) * -left[:, None]
        update = exact_dot(tl.trans(k), w, ring_k.dtype.element_ty == tl.float32)
        tl.store(tile, (tl.exp(end) * old + update).to(matrix.dtype.element_ty))


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
def tf32_part(x):
    """x with the mantissa that tf32 keeps, so that what is left out can be multiplied separately."""
    return (x.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def empty_ring(ring_k, ring_w, gate, D: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr):
    """Zeros in every row and gate."""
    s = tl.arange(0, ROWS)
    at = s[:, None] * D + tl.arange(0, D)[None, :]
    nothing = tl.zeros((ROWS, D), ring_k.dtype.element_ty)
    tl.store(ring_k + at, nothing, mask=(s < C)[:, None])
    tl.store(ring_w + at, nothing, mask=(s < C)[:, None])
    pair = tl.arange(0, 2 * ROWS)
    tl.store(gate + pair, tl.zeros((2 * ROWS,), tl.float32), mask=pair < 2 * C)
