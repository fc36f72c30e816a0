# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The ring's rows into the first chunk, and the rows of an unfinished last chunk into the ring."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack_ring(
    ring_k_ptr, ring_w_ptr, gate_ptr, keys_ptr, writes_ptr, token_ptr, at, eta_max, D: tl.constexpr, T: tl.constexpr
):
    """The ring's rows become the first rows of the first chunk: a closed one has no rate, the open one brings p."""
    d, r = tl.arange(0, D), tl.arange(0, T)
    row = r[:, None] * D + d[None, :]
    old = r < at
    k = tl.load(ring_k_ptr + row, mask=old[:, None], other=0.0)
    w = tl.load(ring_w_ptr + row, mask=old[:, None], other=0.0).to(tl.float32) / eta_max
    tl.store(keys_ptr + row, k.to(tl.float16), mask=old[:, None])
    tl.store(writes_ptr + row, w.to(tl.float16), mask=old[:, None])
    rate = tl.load(gate_ptr + 2 * r, mask=r == at - 1, other=0.0)
    tl.store(token_ptr + r, rate, mask=old)
    tl.store(token_ptr + T + r, tl.load(gate_ptr + 2 * r + 1, mask=old, other=0.0), mask=old)
    tl.store(token_ptr + 2 * T + r, tl.load(gate_ptr + 2 * r - 1, mask=old & (r > 0), other=0.0), mask=old)


@triton.jit
def pack_kernel(
    starts_ptr,
    slots_ptr,
    matrix_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    keys_ptr,
    writes_ptr,
    token_ptr,
    carried_ptr,
    matrix_stride,
    ring_stride,
    gate_stride,
    position_stride,
    num_slots,
    length,
    eta_max,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
):
    """One (sequence, head): its matrix, ring and position after the last token.

    A kernel of its own: what it addresses would wait in registers all through the loop of ``write_kernel``.
    """
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    begin = b * length
    if starts_ptr is not None:
        begin = tl.load(starts_ptr + b)
        length = tl.load(starts_ptr + b + 1) - begin
    slot = b.to(tl.int64)
    if slots_ptr is not None:
        slot = tl.load(slots_ptr + b).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            return
    position_ptr += slot * position_stride + h
    at = tl.load(position_ptr)
    if at >= C:
        return
    # Every warp has read the position before one of them moves it.
    tl.debug_barrier()
    end = at + length
    last = ((begin // C + 2 * b + (end - 1) // C) * H + h).to(tl.int64)
    d, r = tl.arange(0, D), tl.arange(0, T)
    row = r[:, None] * D + d[None, :]
    keys_ptr += last * T * D + row
    writes_ptr += last * T * D + row
    token_ptr += last * 7 * T + r
    ring = slot * ring_stride + h * C * D + row
    gate_ptr += slot * gate_stride + h * C * 2 + 2 * r

    rows = end % C
    # Rows that the ring held before the call, if no chunk has ended since.
    held = tl.where(end < C, at, 0)
    changed = (r >= held) & (r < C)
    new = changed & (r < rows)
    k = tl.load(keys_ptr, mask=new[:, None], other=0.0)
    tl.store(ring_k_ptr + ring, k.to(ring_k_ptr.dtype.element_ty), mask=changed[:, None])
    solved = (r >= held - 1) & (r < rows)
    w = eta_max * tl.load(writes_ptr, mask=solved[:, None], other=0.0).to(tl.float32)
    kept = solved | ((r >= rows) & (r < C))
    tl.store(ring_w_ptr + ring, w.to(ring_w_ptr.dtype.element_ty), mask=kept[:, None])
    tl.store(gate_ptr, tl.load(token_ptr, mask=new, other=0.0), mask=changed)
    tl.store(gate_ptr + 1, tl.load(token_ptr + T, mask=new, other=0.0), mask=changed)
    tl.store(position_ptr, rows)
    if end >= C:
        square = d[:, None] * D + d[None, :]
        matrix = tl.load(carried_ptr + tl.program_id(0) * D * D + square)
        tl.store(matrix_ptr + slot * matrix_stride + h * D * D + square, matrix.to(matrix_ptr.dtype.element_ty))
