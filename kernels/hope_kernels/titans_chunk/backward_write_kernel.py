# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The gradient through what a sequence writes, from its last chunk to its first."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_chunk.write_kernel import earlier_rows, load_columns


@triton.jit
def backward_write_kernel(
    x_ptr,
    starts_ptr,
    key_ptr,
    value_ptr,
    gates_ptr,
    span_ptr,
    keys_ptr,
    writes_ptr,
    frozen_ptr,
    token_ptr,
    scale_ptr,
    query_ptr,
    answer_ptr,
    by_keys_ptr,
    by_rows_ptr,
    later_ptr,
    values_ptr,
    v_scale_ptr,
    rows_ptr,
    reach_ptr,
    by_x_ptr,
    carried_ptr,
    after_ptr,
    sums_ptr,
    length,
    eta_max,
    alpha_min,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """One (sequence, head): x's gradient; the snapshot's is carried from chunk to chunk in fp32, input axis first.

    Tiles are [D, T]. Rows that were in the ring before the call get no gradient.
    """
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    begin = b * length
    if starts_ptr is not None:
        begin = tl.load(starts_ptr + b)
        length = tl.load(starts_ptr + b + 1) - begin
    chunk = begin // C + 2 * b
    at = tl.load(span_ptr + 3 * chunk)
    if at < 0:
        return
    d, r = tl.arange(0, D), tl.arange(0, T)
    square = d[:, None] * D + d[None, :]
    tile = r[None, :] * D + d[:, None]
    x_ptr += (begin.to(tl.int64) * H + h) * D
    by_x_ptr += (begin.to(tl.int64) * H + h) * D
    key_ptr += h * D * D
    value_ptr += h * D * D
    gates_ptr += h * 2 * D
    scale = tl.load(scale_ptr + chunk * H + h)
    carried_ptr += tl.program_id(0) * D * D
    after_ptr += tl.program_id(0) * D * D
    sums_ptr += tl.program_id(0) * 3 * T
    tl.store(carried_ptr + square, tl.zeros((D, D), tl.float32))
    tl.store(after_ptr + square, tl.zeros((D, D), tl.float16))
    by_end = 0.0
    count = (at + length + C - 1) // C
    # Nothing may be hoisted out of this loop, nor over a barrier: it would wait in registers that the tiles need.
    for i in tl.range(0, count, num_stages=1, disable_licm=True):
        position = count - 1 - i
        # Addresses start from a zero that the compiler cannot know, lest it keep them all through the loop.
        zero = tl.multiple_of(tl.minimum(position, 0), D * D)
        square = zero + d[:, None] * D + d[None, :]
        sums = sums_ptr + zero + r
        start = position * C - at
        new = (start + r >= 0) & (start + r < length) & (r < C)
        here = ((chunk + position) * H + h).to(tl.int64)
        tokens = token_ptr + here * 7 * T + r
        tiles = here * T * D + tile
        tl.debug_barrier()
        writes = tl.load(writes_ptr + tiles)
        end = tl.load(token_ptr + here * 7 * T + T + C - 1)

        # Rows: those of the outputs, and the next snapshot's through all rows behind.
        by_row = tl.dot(tl.trans(tl.load(after_ptr + square)), tl.load(reach_ptr + tiles))
        by_row = tl.load(by_rows_ptr + tiles).to(tl.float32) - by_row
        by_row = tl.where(new[None, :], by_row, 0.0)
        narrow = by_row.to(tl.float16)
        tl.store(by_rows_ptr + tiles, narrow)
        tl.store(sums, eta_max * tl.sum(by_row * writes.to(tl.float32), 0))
        mixed = tl.dot(tl.trans(narrow), writes) * (-eta_max * tl.load(tokens))[:, None]
        mixed = (mixed * earlier_rows(token_ptr + here * 7 * T, r, T)).to(tl.float16)
        tl.debug_barrier()
        by_free = tl.dot(tl.trans(tl.load(frozen_ptr + here * D * D + square)), narrow, acc=by_row)
        tl.debug_barrier()

        # Values, and through their norm.
        by_rate = by_free * tl.load(tokens)[None, :]
        tl.store(sums + T, tl.sum(tl.load(keys_ptr + tiles).to(tl.float32) * by_rate, 0))
        tl.debug_barrier()
        values = tl.load(values_ptr + tiles).to(tl.float32)
        along_v = tl.sum(values * by_rate, 0)
        tl.store(sums + 2 * T, along_v)
        v_scale = tl.load(v_scale_ptr + here * T + r)
        by_v = (v_scale[None, :] * (values * along_v[None, :] - by_rate)).to(tl.float16)
        tl.debug_barrier()

        # Keys, and through their norm.
        by_k = tl.dot(tl.load(after_ptr + square), tl.load(writes_ptr + tiles))
        by_k *= -eta_max * tl.exp(tl.minimum(end - tl.load(tokens + T), 0.0))[None, :]
        keys = tl.load(keys_ptr + tiles)
        by_k += tl.dot(keys, mixed)
        by_k += tl.dot(keys, tl.trans(mixed))
        if CAUSAL:
            tl.debug_barrier()
            by_k += tl.load(by_keys_ptr + tiles).to(tl.float32)
        tl.debug_barrier()
        by_p = by_free - tl.load(by_rows_ptr + tiles).to(tl.float32)
        by_k += tl.load(tokens)[None, :] * (tl.exp(tl.load(tokens + 2 * T))[None, :] * by_p + by_free)
        tl.debug_barrier()
        k = tl.load(keys_ptr + tiles).to(tl.float32)
        along_k = tl.sum(k * by_k, 0)
        k_scale = tl.load(tokens + 3 * T)
        k_scale = tl.where(new & (k_scale < 1e11), k_scale, 0.0)
        by_k = (k_scale[None, :] * (by_k - k * along_k[None, :])).to(tl.float16)
        tl.debug_barrier()
        by_seen = tl.dot(tl.trans(tl.load(key_ptr + square).to(tl.float16)), by_k)
        tl.debug_barrier()
        by_seen += tl.dot(tl.trans(tl.load(value_ptr + square).to(tl.float16)), by_v)
        tl.debug_barrier()

        # Gates: a write is proportional to its rate; a decay reaches everything later.
        share, later = tl.load(sums), tl.load(sums + 2 * T) - tl.load(sums + T)
        if CAUSAL:
            later += tl.load(later_ptr + here * T + r)
        by_decay = by_end - share + tl.sum(later, 0) - tl.cumsum(later, 0)
        alpha = tl.exp(tl.load(tokens + T) - tl.load(tokens + 2 * T))
        by_decay *= (alpha - alpha_min) * (1.0 - alpha) / ((1.0 - alpha_min) * alpha)
        by_eta = tl.where(new, share * (1.0 - tl.load(tokens) / eta_max), 0.0)
        by_seen += tl.load(gates_ptr + d).to(tl.float32)[:, None] * by_eta[None, :]
        by_seen += tl.load(gates_ptr + D + d).to(tl.float32)[:, None] * tl.where(new, by_decay, 0.0)[None, :]

        # The input, and the snapshot that it was seen through.
        seen = by_seen.to(tl.float16)
        tl.debug_barrier()
        by_x = by_seen + tl.dot(tl.trans(tl.load(frozen_ptr + here * D * D + square)), seen)
        columns = by_x_ptr + (start + r)[None, :].to(tl.int64) * (H * D) + d[:, None]
        tl.store(columns, (by_x / scale).to(by_x_ptr.dtype.element_ty), mask=new[None, :])
        tl.debug_barrier()
        matrix = tl.load(carried_ptr + square) * tl.exp(end)
        x = load_columns(x_ptr, start, length, d, H * D, C, T)
        matrix += tl.dot(x, tl.trans(seen))
        tl.debug_barrier()
        matrix += tl.dot(tl.load(rows_ptr + tiles), tl.trans(tl.load(by_rows_ptr + tiles)))
        tl.debug_barrier()
        query = tl.load(query_ptr + tiles)
        matrix += tl.dot(query, tl.trans(tl.load(answer_ptr + tiles)))
        tl.store(carried_ptr + square, matrix)
        tl.store(after_ptr + square, matrix.to(tl.float16))
        tl.debug_barrier()
        frozen = tl.load(frozen_ptr + here * D * D + tl.trans(square))
        by_end = tl.sum(tl.sum(matrix * frozen.to(tl.float32), 1), 0)
