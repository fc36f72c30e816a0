# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The gradient through what the tokens of one chunk read; it needs no other chunk."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_chunk.write_kernel import earlier_rows


@triton.jit
def scale_kernel(
    grad_ptr,
    starts_ptr,
    scale_ptr,
    length,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
):
    """One (sequence, head): the power of two that brings its largest gradient to a quarter or a half.

    The backward is linear, but fp16 is not wide: what is multiplied is scaled, sequence by sequence, so that one
    sequence's gradient never depends on another's. Written once for each of its chunks, ``scale`` being [G, H].
    """
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    begin = b * length
    if starts_ptr is not None:
        begin = tl.load(starts_ptr + b)
        length = tl.load(starts_ptr + b + 1) - begin
    d, r = tl.arange(0, D), tl.arange(0, 64)
    grad_ptr += (begin.to(tl.int64) * H + h) * D
    largest = tl.zeros((64, D), tl.float32)
    for start in tl.range(0, length, 64, num_stages=4):
        t = (start + r)[:, None]
        rows = tl.load(grad_ptr + t.to(tl.int64) * (H * D) + d[None, :], mask=t < length, other=0.0)
        largest = tl.maximum(largest, tl.abs(rows.to(tl.float32)))
    peak = tl.max(tl.max(largest, 1), 0)
    usable = (peak > 0) & (peak < float("inf"))
    power = -2.0 - tl.floor(tl.log2(tl.where(usable, peak, 0.25)))
    chunk = begin // C + 2 * b
    for i in range(chunk, (begin + length) // C + 2 * b + 2):
        tl.store(scale_ptr + i * H + h, tl.exp2(tl.minimum(power, 120.0)))


@triton.jit
def backward_read_kernel(
    q_ptr,
    grad_ptr,
    memory_ptr,
    span_ptr,
    keys_ptr,
    writes_ptr,
    frozen_ptr,
    token_ptr,
    scale_ptr,
    by_q_ptr,
    by_x_ptr,
    query_ptr,
    answer_ptr,
    by_keys_ptr,
    by_rows_ptr,
    later_ptr,
    eta_max,
    H: tl.constexpr,
    D: tl.constexpr,
    T: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """One (chunk, head): q's gradient, and what the outputs alone add to those of its keys and writes.

    Tiles are [D, T]. Sequences without a state get their zeros or NaN here, in x's gradient, too.
    """
    chunk, h = tl.program_id(0), tl.program_id(1)
    before_first = tl.load(span_ptr + 3 * chunk)
    low, high = tl.load(span_ptr + 3 * chunk + 1), tl.load(span_ptr + 3 * chunk + 2)
    if low == high:
        return
    d, r = tl.arange(0, D), tl.arange(0, T)
    lane = h * D + d[:, None]
    if before_first < 0:
        nothing = tl.where(before_first == -1, 0.0, float("nan")).to(by_q_ptr.dtype.element_ty)
        for start in range(low, high, T):
            t = (start + r)[None, :]
            at = lane + t.to(tl.int64) * (H * D)
            tl.store(by_q_ptr + at, tl.zeros((D, T), nothing.dtype) + nothing, mask=t < high)
            tl.store(by_x_ptr + at, tl.zeros((D, T), nothing.dtype) + nothing, mask=t < high)
        return
    t = low - before_first + r
    here = ((t >= low) & (t < high))[None, :]
    columns = lane + t[None, :].to(tl.int64) * (H * D)
    at_chunk = (chunk * H + h).to(tl.int64)
    square = d[:, None] * D + d[None, :]
    tile = at_chunk * T * D + r[None, :] * D + d[:, None]
    tokens = token_ptr + at_chunk * 7 * T
    scale = tl.load(scale_ptr + at_chunk)

    grad = (tl.load(grad_ptr + columns, mask=here, other=0.0).to(tl.float32) * scale).to(tl.float16)
    memory = tl.load(memory_ptr + h * D * D + square).to(tl.float16)
    answer = tl.dot(tl.trans(memory), grad)
    narrow = answer.to(tl.float16)
    tl.store(answer_ptr + tile, narrow)
    tl.debug_barrier()
    back = tl.dot(tl.trans(tl.load(frozen_ptr + at_chunk * D * D + square)), narrow)
    tl.debug_barrier()
    q, norm = unit_and_scale(q_ptr + columns, here)
    if CAUSAL:
        # One tile carries the answer and what reaches it through the memory: of the latter alone only its product
        # with q is asked for, which is a difference. What can be read again does not wait in registers.
        tl.store(later_ptr + at_chunk * T + r, tl.sum(q * answer, 0))
        left = tl.exp(tl.load(tokens + 2 * T + r))[None, :]
        by_q = answer + back * left
        tl.store(query_ptr + tile, (q * left).to(tl.float16))
        unit = q.to(tl.float16)
        tl.debug_barrier()
        keys = tl.load(keys_ptr + tile)
        seen = (earlier_rows(tokens, r, T) * tl.dot(tl.trans(unit), keys)).to(tl.float16)
        tl.store(by_rows_ptr + tile, (-tl.dot(narrow, seen)).to(tl.float16))
        tl.debug_barrier()
        by_seen = earlier_rows(tokens, r, T) * tl.dot(tl.trans(narrow), tl.load(writes_ptr + tile))
        by_seen = (eta_max * by_seen).to(tl.float16)
        tl.store(by_keys_ptr + tile, (-tl.dot(unit, by_seen)).to(tl.float16))
        tl.debug_barrier()
        by_q -= tl.dot(keys, tl.trans(by_seen))
        tl.debug_barrier()
        q, norm = unit_and_scale(q_ptr + columns, here)
        along = tl.sum(q * by_q, 0)
        later = along - tl.load(later_ptr + at_chunk * T + r)
        tl.debug_barrier()
        tl.store(later_ptr + at_chunk * T + r, later)
    else:
        tl.store(query_ptr + tile, q.to(tl.float16))
        by_q = answer + back
        along = tl.sum(q * by_q, 0)
    by_q = (by_q - q * along[None, :]) * (norm / scale)[None, :]
    tl.store(by_q_ptr + columns, by_q.to(by_q_ptr.dtype.element_ty), mask=here)


@triton.jit
def unit_and_scale(q_at, here):
    """Queries over their lengths, a column each, and one over the length; zero where there is none."""
    q = tl.load(q_at, mask=here, other=0.0).to(tl.float32)
    norm = tl.sqrt(tl.sum(q * q, 0))
    norm = tl.where(norm > 1e-12, 1.0 / tl.maximum(norm, 1e-12), 0.0)
    return q * norm[None, :], norm
