# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The one pass over a slot's matrix: products with x, q and the ring's open row, and everything the ring adds."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents


@triton.jit
def read_kernel(
    x_ptr,
    q_ptr,
    slots_ptr,
    matrix_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    seen_x_ptr,
    seen_q_ptr,
    closed_ptr,
    matrix_stride,
    ring_stride,
    gate_stride,
    position_stride,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    DEEP: tl.constexpr,
    WIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
    RING_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """seen_x = x + x M, seen_q = M_t-1 applied to the normed q, and the ring's open row, closed; fp32 [B, H, D].

    One program a (sequence, head, COLUMNS of the output); each reads the whole open row, so none may change it.
    A tile of the matrix is [WIDE, DEEP, COLUMNS], rows counted WIDE first, so that the sums over DEEP stay in a
    thread's registers. A sequence in the null slot gets zeros; one whose slot does not exist, or whose ring is full,
    gets NaN and changes nothing.
    """
    if OVERLAP:
        gdc_launch_dependents()
    sequence_head = tl.program_id(0)
    h = sequence_head % H
    d = tl.arange(0, D)
    cols = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    seen_x_ptr += sequence_head * D + cols
    seen_q_ptr += sequence_head * D + cols
    slot = (sequence_head // H).to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + slot).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            nothing = tl.full((COLUMNS,), 0.0, tl.float32)
            tl.store(seen_q_ptr, tl.where(slot == 0, nothing, float("nan")))
            return
    n = tl.load(position_ptr + slot * position_stride + h)
    if n >= C:
        tl.store(seen_q_ptr, tl.full((COLUMNS,), float("nan"), tl.float32))
        return
    x_ptr += sequence_head * D
    q_ptr += sequence_head * D
    matrix_ptr += slot * matrix_stride + h * D * D
    ring = slot * ring_stride + h * C * D
    open_row = ring + tl.maximum(n - 1, 0) * D
    gate_ptr += slot * gate_stride + h * C * 2
    eta = tl.load(gate_ptr + 2 * n - 2, mask=n > 0, other=0.0)
    decay = tl.load(gate_ptr + 2 * n - 1, mask=n > 0, other=0.0)
    decay_before = tl.load(gate_ptr + 2 * n - 3, mask=n > 1, other=0.0)
    k = tl.load(ring_k_ptr + open_row + d, mask=(d < D) & (n > 0), other=0.0).to(tl.float32)

    wide = tl.arange(0, WIDE)[:, None]
    deep = tl.arange(0, DEEP)[None, :]
    sum_x = tl.zeros((WIDE, COLUMNS), tl.float32)
    sum_q = tl.zeros((WIDE, COLUMNS), tl.float32)
    sum_p = tl.zeros((WIDE, COLUMNS), tl.float32)
    for start in tl.range(0, D, DEEP * WIDE, num_stages=STAGES):
        rows = start + wide * DEEP + deep
        tile = tl.load(matrix_ptr + rows[:, :, None] * D + cols[None, None, :], eviction_policy="evict_first").to(
            tl.float32
        )
        x = tl.load(x_ptr + rows).to(tl.float32)
        q = tl.load(q_ptr + rows).to(tl.float32)
        p = tl.load(ring_w_ptr + open_row + rows, mask=(rows >= 0) & (n > 0), other=0.0).to(tl.float32)
        sum_x += tl.sum(tile * x[:, :, None], 1)
        sum_q += tl.sum(tile * q[:, :, None], 1)
        sum_p += tl.sum(tile * p[:, :, None], 1)

    tl.store(seen_x_ptr, tl.load(x_ptr + cols).to(tl.float32) + tl.sum(sum_x, 0))
    q = tl.load(q_ptr + d).to(tl.float32)
    seen_q = tl.sum(sum_q, 0)
    if n > 0:
        mixed_q = tl.zeros((COLUMNS,), tl.float32)
        mixed_k = tl.zeros((COLUMNS,), tl.float32)
        for start in range(0, n - 1, RING_ROWS):
            rows = start + tl.arange(0, RING_ROWS)
            closed = rows < n - 1
            row_decay = tl.load(gate_ptr + 2 * rows + 1, mask=closed, other=0.0)
            row = ring + rows[:, None] * D
            row_k = tl.load(ring_k_ptr + row + d[None, :], mask=closed[:, None], other=0.0).to(tl.float32)
            row_w = tl.load(ring_w_ptr + row + cols[None, :], mask=closed[:, None], other=0.0).to(tl.float32)
            by_q = tl.sum(row_k * q[None, :], 1) * tl.exp(decay - row_decay)
            by_k = tl.sum(row_k * k[None, :], 1) * tl.exp(decay_before - row_decay)
            mixed_q += tl.sum(row_w * by_q[:, None], 0)
            mixed_k += tl.sum(row_w * by_k[:, None], 0)
        p = tl.load(ring_w_ptr + open_row + cols).to(tl.float32)
        k_cols = tl.load(ring_k_ptr + open_row + cols).to(tl.float32)
        w = tl.sum(sum_p, 0) + p - eta * (tl.exp(decay_before) * k_cols + mixed_k)
        w = w.to(ring_w_ptr.dtype.element_ty).to(tl.float32)
        tl.store(closed_ptr + sequence_head * D + cols, w)
        if CAUSAL:
            seen_q = tl.exp(decay) * seen_q - mixed_q - tl.sum(k * q) * w
    scale = 1.0 / tl.maximum(tl.sqrt(tl.sum(q * q)), 1e-12)
    tl.store(seen_q_ptr, scale * (tl.load(q_ptr + cols).to(tl.float32) + seen_q))
