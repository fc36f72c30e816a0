# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The convolution over slots: one row a sequence, runs of rows, the tails behind these, and the gradient of x."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.cms_delta.runs import tile_of_run


@triton.jit
def weight(kernel_ptr, c, inside, tap):
    """Column ``tap`` of the kernel [d, 4], fp32."""
    return tl.load(kernel_ptr + c * 4 + tap, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["num_slots"])
def decode_kernel(
    x_ptr,
    tails_ptr,
    kernel_ptr,
    slots_ptr,
    y_ptr,
    x_stride,
    tails_stride,
    num_slots,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row of every sequence and its tail one row on; one program a (row, BLOCK of d). y: contiguous."""
    blocks: tl.constexpr = (D + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = c < D
    slot = tl.load(slots_ptr + row).to(tl.int64)
    owned = inside & (slot > 0) & (slot < num_slots)
    tail_at = tails_ptr + slot * tails_stride + c
    x = tl.load(x_ptr + row * x_stride + c, mask=inside, other=0.0)
    first = tl.load(tail_at, mask=owned, other=0.0)
    second = tl.load(tail_at + D, mask=owned, other=0.0)
    third = tl.load(tail_at + 2 * D, mask=owned, other=0.0)
    total = weight(kernel_ptr, c, inside, 0) * first.to(tl.float32)
    total += weight(kernel_ptr, c, inside, 1) * second.to(tl.float32)
    total += weight(kernel_ptr, c, inside, 2) * third.to(tl.float32)
    total += weight(kernel_ptr, c, inside, 3) * x.to(tl.float32)
    y = total * tl.sigmoid(total)
    y = tl.where((slot >= 0) & (slot < num_slots), y, float("nan"))
    tl.store(y_ptr + row * D + c, y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(tail_at, second, mask=owned)
    tl.store(tail_at + D, third, mask=owned)
    tl.store(tail_at + 2 * D, x.to(tails_ptr.dtype.element_ty), mask=owned)


@triton.jit
def input_at(x_ptr, tail_ptr, t, start, end, c, x_stride, owned, D: tl.constexpr):
    """Rows ``t`` of a sequence, fp32: of x from ``start`` on, of its tail before, zero from ``end`` on."""
    inside = (c < D)[None, :]
    x_at = x_ptr + t[:, None] * x_stride + c[None, :]
    x = tl.load(x_at, mask=((t >= start) & (t < end))[:, None] & inside, other=0.0)
    tail_at = tail_ptr + (t - start + 3)[:, None] * D + c[None, :]
    tail = tl.load(tail_at, mask=((t < start) & owned)[:, None] & inside, other=0.0)
    return x.to(tl.float32) + tail.to(tl.float32)


@triton.jit
def convolved(x_ptr, tail_ptr, kernel_ptr, t, start, end, c, x_stride, owned, D: tl.constexpr):
    """What silu is taken of, for rows ``t`` of a sequence."""
    total = tl.zeros((t.shape[0], c.shape[0]), tl.float32)
    for tap in tl.static_range(4):
        given = input_at(x_ptr, tail_ptr, t - 3 + tap, start, end, c, x_stride, owned, D)
        total += weight(kernel_ptr, c, c < D, tap)[None, :] * given
    return total


@triton.jit(do_not_specialize=["count", "rows", "steps", "num_slots"])
def ragged_kernel(
    x_ptr,
    tails_ptr,
    kernel_ptr,
    slots_ptr,
    starts_ptr,
    y_ptr,
    count,
    rows,
    steps,
    x_stride,
    tails_stride,
    num_slots,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Runs of rows; the tails stay. One program a (tile of ROWS, BLOCK of d). y: contiguous."""
    blocks: tl.constexpr = (D + BLOCK - 1) // BLOCK
    sequence, start, end = tile_of_run(starts_ptr, tl.program_id(0) // blocks, count, rows, steps, ROWS)
    if start >= end:
        return
    t = start + tl.arange(0, ROWS)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(slots_ptr + sequence).to(tl.int64)
    owned = (slot > 0) & (slot < num_slots)
    first = tl.load(starts_ptr + sequence).to(tl.int64)
    total = convolved(x_ptr, tails_ptr + slot * tails_stride, kernel_ptr, t, first, end, c, x_stride, owned, D)
    y = total * tl.sigmoid(total)
    y = tl.where((slot >= 0) & (slot < num_slots), y, float("nan"))
    y_at = y_ptr + t[:, None] * D + c[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=(t < end)[:, None] & (c < D)[None, :])


@triton.jit(do_not_specialize=["num_slots"])
def tail_kernel(
    x_ptr, tails_ptr, slots_ptr, starts_ptr, x_stride, tails_stride, num_slots, D: tl.constexpr, BLOCK: tl.constexpr
):
    """The last three of a sequence's tail and rows become its tail; one program a (sequence, BLOCK of d)."""
    blocks: tl.constexpr = (D + BLOCK - 1) // BLOCK
    sequence = tl.program_id(0) // blocks
    slot = tl.load(slots_ptr + sequence).to(tl.int64)
    if (slot <= 0) | (slot >= num_slots):
        return
    start = tl.load(starts_ptr + sequence).to(tl.int64)
    end = tl.load(starts_ptr + sequence + 1).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    # A fourth row, which is not stored, makes the tile's height a power of two.
    place = tl.arange(0, 4)
    tail_ptr = tails_ptr + slot * tails_stride
    moved = input_at(x_ptr, tail_ptr, end - 3 + place, start, end, c, x_stride, True, D)
    # Every program reads and writes its own columns, and must have read them all before it writes.
    tl.debug_barrier()
    tail_at = tail_ptr + place[:, None] * D + c[None, :]
    tl.store(tail_at, moved.to(tails_ptr.dtype.element_ty), mask=(place < 3)[:, None] & (c < D)[None, :])


@triton.jit(do_not_specialize=["count", "rows", "steps"])
def backward_kernel(
    grad_ptr,
    x_ptr,
    before_ptr,
    kernel_ptr,
    starts_ptr,
    grad_x_ptr,
    count,
    rows,
    steps,
    grad_stride,
    x_stride,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """grad_x[t] = sum_i kernel[:, 3 - i] (grad silu'(conv))[t + i] within each run; before: [B, 3, D], its tail."""
    blocks: tl.constexpr = (D + BLOCK - 1) // BLOCK
    sequence, start, end = tile_of_run(starts_ptr, tl.program_id(0) // blocks, count, rows, steps, ROWS)
    if start >= end:
        return
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(starts_ptr + sequence).to(tl.int64)
    before_ptr += sequence.to(tl.int64) * 3 * D
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for ahead in range(4):
        t = start + ahead + tl.arange(0, ROWS)
        z = convolved(x_ptr, before_ptr, kernel_ptr, t, first, end, c, x_stride, True, D)
        shape = tl.sigmoid(z)
        grad_at = grad_ptr + t[:, None] * grad_stride + c[None, :]
        grad = tl.load(grad_at, mask=(t < end)[:, None] & (c < D)[None, :], other=0.0).to(tl.float32)
        total += weight(kernel_ptr, c, c < D, 3 - ahead)[None, :] * grad * shape * (1 + z * (1 - shape))
    t = start + tl.arange(0, ROWS)
    at = grad_x_ptr + t[:, None] * D + c[None, :]
    tl.store(at, total.to(grad_x_ptr.dtype.element_ty), mask=(t < end)[:, None] & (c < D)[None, :])
