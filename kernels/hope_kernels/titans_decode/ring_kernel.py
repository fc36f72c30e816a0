# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a ring's closed rows add to the products of two vectors with the memory."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_decode.dot_kernel import in_parts, load_row, store_rows


@triton.jit
def mix_by_sums(
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    q,
    k,
    decay,
    decay_before,
    closed_rows,
    cols,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
    RING_ROWS: tl.constexpr,
):
    """Sums over the ring's closed rows s of w_s times q . k_s and k . k_s, each decayed to its time; fp32 [COLUMNS]."""
    d = tl.arange(0, D)
    mixed_q = tl.zeros((COLUMNS,), tl.float32)
    mixed_k = tl.zeros((COLUMNS,), tl.float32)
    for start in tl.range(0, closed_rows, RING_ROWS, num_stages=1):
        rows = start + tl.arange(0, RING_ROWS)
        closed = rows < closed_rows
        row_decay = tl.load(gate_ptr + 2 * rows + 1, mask=closed, other=0.0)
        row_k = tl.load(ring_k_ptr + rows[:, None] * D + d[None, :], mask=closed[:, None], other=0.0).to(tl.float32)
        row_w = tl.load(ring_w_ptr + rows[:, None] * D + cols[None, :], mask=closed[:, None], other=0.0).to(tl.float32)
        by_q = tl.sum(row_k * q[None, :], 1) * tl.exp(decay - row_decay)
        by_k = tl.sum(row_k * k[None, :], 1) * tl.exp(decay_before - row_decay)
        mixed_q += tl.sum(row_w * by_q[:, None], 0)
        mixed_k += tl.sum(row_w * by_k[:, None], 0)
    return mixed_q, mixed_k


@triton.jit
def mix_by_dots(
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    seen_ptr,
    q,
    k,
    decay,
    decay_before,
    closed_rows,
    cols,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
    RING_ROWS: tl.constexpr,
):
    """The same for a ring of 16 bits, on matrix units: rows of a tile of 16 are q and k, in two parts each."""
    d, m = tl.arange(0, D), tl.arange(0, 16)[:, None]
    narrow = ring_k_ptr.dtype.element_ty
    asked = in_parts(tl.where(m % 8 == 0, q[None, :], tl.where(m % 8 == 1, k[None, :], 0.0)), narrow)
    until = tl.where(m % 8 == 1, decay_before, decay)
    mixed = tl.zeros((16, COLUMNS), tl.float32)
    for start in tl.range(0, closed_rows, RING_ROWS, num_stages=1):
        rows = start + tl.arange(0, RING_ROWS)
        closed = rows < closed_rows
        row_decay = tl.load(gate_ptr + 2 * rows + 1, mask=closed, other=0.0)
        row_k = tl.load(ring_k_ptr + rows[:, None] * D + d[None, :], mask=closed[:, None], other=0.0)
        row_w = tl.load(ring_w_ptr + rows[:, None] * D + cols[None, :], mask=closed[:, None], other=0.0)
        by = tl.dot(asked, tl.trans(row_k)) * tl.exp(until - row_decay[None, :])
        mixed = tl.dot(by.to(narrow), row_w, mixed)
    store_rows(seen_ptr, mixed, cols, 2, D)
    return load_row(seen_ptr, cols, 0, D), load_row(seen_ptr, cols, 1, D)
