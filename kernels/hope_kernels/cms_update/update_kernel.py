# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""One pass over the pools of the sequences in a call: the open chunk's sum, and the optimizer where the chunk ended."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.cms_delta.sum_kernel import outer_sum


@triton.jit
def ask(fired, delta_at, gradient_at, momentum_at, inside, HAS_MOMENTUM: tl.constexpr):
    """One tile of the pools, all of it under way at once; the delta and momentum only where the chunk ended."""
    ends = inside & fired
    gradient = tl.load(gradient_at, mask=inside, other=0.0)
    delta = tl.load(delta_at, mask=ends, other=0.0)
    momentum = tl.load(momentum_at, mask=ends, other=0.0) if HAS_MOMENTUM else gradient
    return gradient, delta, momentum


@triton.jit
def write(
    added,
    old,
    fired,
    delta_at,
    gradient_at,
    momentum_at,
    inside,
    rate,
    decay,
    beta,
    HAS_MOMENTUM: tl.constexpr,
):
    """What ``added`` makes of the tile that ``ask`` brought; the delta is touched only where the chunk ended."""
    gradient = old[0].to(tl.float32) + added
    if fired:
        step = gradient
        if HAS_MOMENTUM:
            step += beta * old[2].to(tl.float32)
            tl.store(momentum_at, step.to(momentum_at.dtype.element_ty), mask=inside)
        tl.store(delta_at, (decay * old[1].to(tl.float32) - rate * step).to(delta_at.dtype.element_ty), mask=inside)
        gradient = tl.zeros_like(gradient)
    tl.store(gradient_at, gradient.to(gradient_at.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_slots"])
def update_sums_kernel(
    added_ptr,
    delta_ptr,
    gradient_ptr,
    momentum_ptr,
    slots_ptr,
    fired_ptr,
    rate_ptr,
    decay_ptr,
    scale_ptr,
    beta,
    num_slots,
    added_stride,
    delta_stride,
    gradient_stride,
    momentum_stride,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr,
):
    """Gradients come summed, [B, L, SIZE]; one program a (sequence and BLOCK of a layer's matrix, layer)."""
    blocks: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK
    sequence = tl.program_id(0) // blocks
    layer = tl.program_id(1)
    slot = sequence.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + sequence).to(tl.int64)
        tl.device_assert((slot >= 0) & (slot < num_slots), "slots: no such slot in the pool")
        if (slot <= 0) | (slot >= num_slots):
            return
    i = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    at = layer.to(tl.int64) * SIZE + i
    inside = i < SIZE
    added = tl.load(added_ptr + sequence.to(tl.int64) * added_stride + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_SCALE:
        added *= tl.load(scale_ptr + sequence)
    fired = tl.load(fired_ptr + sequence) != 0
    rate, decay = tl.load(rate_ptr + layer), tl.load(decay_ptr + layer)
    delta_at = delta_ptr + slot * delta_stride + at
    gradient_at = gradient_ptr + slot * gradient_stride + at
    momentum_at = momentum_ptr + slot * momentum_stride + at if HAS_MOMENTUM else gradient_at
    old = ask(fired, delta_at, gradient_at, momentum_at, inside, HAS_MOMENTUM)
    write(added, old, fired, delta_at, gradient_at, momentum_at, inside, rate, decay, beta, HAS_MOMENTUM)


@triton.jit(do_not_specialize=["rows", "num_slots"])
def update_rows_kernel(
    grad_ptr,
    projected_ptr,
    cu_ptr,
    delta_ptr,
    gradient_ptr,
    momentum_ptr,
    slots_ptr,
    fired_ptr,
    rate_ptr,
    decay_ptr,
    scale_ptr,
    beta,
    rows,
    num_slots,
    grad_layer_stride,
    grad_stride,
    delta_stride,
    gradient_stride,
    momentum_stride,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    SAME: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_MOMENTUM: tl.constexpr,
):
    """Gradients come as rows, summed here; one program a (sequence and OUT of d_out, layer)."""
    blocks: tl.constexpr = (D_OUT + OUT - 1) // OUT
    sequence = tl.program_id(0) // blocks
    layer = tl.program_id(1).to(tl.int64)
    slot = sequence.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + sequence).to(tl.int64)
        tl.device_assert((slot >= 0) & (slot < num_slots), "slots: no such slot in the pool")
        if (slot <= 0) | (slot >= num_slots):
            return
    o = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    r = tl.arange(0, R)
    start = tl.load(cu_ptr + sequence).to(tl.int32)
    end = tl.minimum(tl.load(cu_ptr + sequence + 1).to(tl.int32), rows)
    grad_ptr += layer * grad_layer_stride
    projected_ptr += layer * rows * RANK
    at = layer * D_OUT * RANK + o[:, None] * RANK + r[None, :]
    inside = (o < D_OUT)[:, None] & (r < RANK)[None, :]
    fired = tl.load(fired_ptr + sequence) != 0
    rate, decay = tl.load(rate_ptr + layer), tl.load(decay_ptr + layer)
    delta_at = delta_ptr + slot * delta_stride + at
    gradient_at = gradient_ptr + slot * gradient_stride + at
    momentum_at = momentum_ptr + slot * momentum_stride + at if HAS_MOMENTUM else gradient_at
    # Before the sum, which hides the wait; numbers that come one by one would take too many registers to hold so long.
    early: tl.constexpr = RANK == R
    if early:
        old = ask(fired, delta_at, gradient_at, momentum_at, inside, HAS_MOMENTUM)
    added = outer_sum(grad_ptr, projected_ptr, start, end, o, r, grad_stride, D_OUT, RANK, ROWS, STAGES, SAME)
    if HAS_SCALE:
        added *= tl.load(scale_ptr + sequence)
    if not early:
        old = ask(fired, delta_at, gradient_at, momentum_at, inside, HAS_MOMENTUM)
    write(added, old, fired, delta_at, gradient_at, momentum_at, inside, rate, decay, beta, HAS_MOMENTUM)
