# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a sequence writes into its memory, chunk after chunk, with the matrix in registers.

Tiles are [D, T], a token a column: so that every large product has the head size for rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_chunk.ring_kernel import unpack_ring
from hope_kernels.titans_chunk.solve_kernel import solve_columns


@triton.jit
def write_kernel(
    x_ptr,
    starts_ptr,
    slots_ptr,
    key_ptr,
    value_ptr,
    gates_ptr,
    bias_ptr,
    matrix_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    span_ptr,
    keys_ptr,
    writes_ptr,
    frozen_ptr,
    token_ptr,
    solve_ptr,
    carried_ptr,
    matrix_stride,
    ring_stride,
    gate_stride,
    position_stride,
    num_slots,
    length,
    eta_max,
    alpha_min,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    X_ROW: tl.constexpr,
):
    """One (sequence, head): its chunks' keys, writes, snapshots and gates, and its matrix after them.

    T is C rounded up; X_ROW: from one row of x to the next. Rows of a chunk that were in the ring before keep their
    place: a closed row solves to itself, the open one is closed with the others.
    """
    b, h = tl.program_id(0) // H, tl.program_id(0) % H
    begin = b * length
    if starts_ptr is not None:
        begin = tl.load(starts_ptr + b)
        length = tl.load(starts_ptr + b + 1) - begin
    slot = b.to(tl.int64)
    if slots_ptr is not None:
        slot = tl.load(slots_ptr + b).to(tl.int64)
    # Chunks of all sequences lie one behind the other, with room for a sequence to begin and end inside one.
    chunk = begin // C + 2 * b
    most = (begin + length) // C + 2 * b + 2 - chunk
    at = 0
    known = (slot >= 0) & (slot < num_slots)
    if slots_ptr is not None:
        known = known & (slot > 0)
    if known:
        at = tl.load(position_ptr + slot * position_stride + h)
        known = at < C
    if not known:
        refuse(span_ptr + chunk * 3, most, begin, length, slot == 0, h == 0)
        return
    list_chunks(span_ptr + chunk * 3, most, at, begin, length, h == 0, C)

    d, r = tl.arange(0, D), tl.arange(0, T)
    square = d[None, :] * D + d[:, None]
    column = r[None, :] * D + d[:, None]
    first = (chunk * H + h).to(tl.int64)
    keys_ptr += first * T * D
    writes_ptr += first * T * D
    frozen_ptr += first * D * D
    token_ptr += first * 7 * T
    matrix_ptr += slot * matrix_stride + h * D * D
    ring_k_ptr += slot * ring_stride + h * C * D
    ring_w_ptr += slot * ring_stride + h * C * D
    gate_ptr += slot * gate_stride + h * C * 2
    x_ptr += begin.to(tl.int64) * X_ROW + h * D
    solve_ptr += tl.program_id(0) * 2 * T * T
    carried_ptr += tl.program_id(0) * D * D
    unpack_ring(ring_k_ptr, ring_w_ptr, gate_ptr, keys_ptr, writes_ptr, token_ptr, at, eta_max, D, T)
    # One at a time: all at once they would not fit into the registers.
    matrix = tl.load(matrix_ptr + square).to(tl.float32)
    tl.store(frozen_ptr + tl.trans(square), matrix.to(tl.float16))
    tl.store(carried_ptr + square, matrix)
    tl.debug_barrier()
    key = tl.load(key_ptr + h * D * D + tl.trans(square)).to(tl.float16)
    tl.debug_barrier()
    value = tl.load(value_ptr + h * D * D + tl.trans(square)).to(tl.float16)
    tl.debug_barrier()
    x = load_columns(x_ptr, -at, length, d, X_ROW, C, T)

    gate = tl.arange(0, 16)
    gates = tl.load(gates_ptr + h * 2 * D + gate[None, :] * D + d[:, None], mask=gate[None, :] < 2, other=0.0)
    gates = gates.to(tl.float16)

    # Nothing may be hoisted out of this loop: it would wait in registers that the tiles need.
    for start in tl.range(-at, length, C, num_stages=1, disable_licm=True):
        tl.debug_barrier()
        frozen = tl.load(frozen_ptr + tl.trans(square))

        # What the snapshot makes of the new tokens; columns of others are zero.
        seen = tl.dot(frozen, x, acc=x.to(tl.float32)).to(tl.float16)
        logits = tl.dot(tl.trans(seen), gates)
        eta = eta_max * tl.sigmoid(pick(logits, 0) + tl.load(bias_ptr + 2 * h).to(tl.float32))
        alpha = tl.sigmoid(pick(logits, 1) + tl.load(bias_ptr + 2 * h + 1).to(tl.float32))
        store_gates(token_ptr, eta, alpha_min + (1.0 - alpha_min) * alpha, start, length, r, C, T)
        v = tl.dot(value, seen).to(tl.float16)
        v_scale = norm_scale(tl.dot(tl.trans(v), v))
        k = tl.dot(key, seen).to(tl.float16)
        if start < 0:
            k += tl.load(keys_ptr + column, mask=(start + r < 0)[None, :], other=0.0)
        gram = tl.dot(tl.trans(k), k)
        k_scale = tl.where(start + r < 0, 1.0, norm_scale(gram))
        store_scales(token_ptr, k_scale, v_scale, start, eta_max, r, T)
        lower = gram * tl.load(token_ptr + 3 * T + r)[None, :] * (tl.load(token_ptr + r) * k_scale)[:, None]
        tl.store(solve_ptr + r[:, None] * T + r[None, :], lower * earlier_rows(token_ptr, r, T))

        # w = p M + free, before the rows of a chunk are told apart; over eta_max, so that small rates keep digits.
        p = k * tl.load(token_ptr + 4 * T + r)[None, :]
        free = p - v * tl.load(token_ptr + 5 * T + r)[None, :]
        p = free + k * tl.load(token_ptr + 6 * T + r)[None, :]
        if start < 0:
            old = tl.load(writes_ptr + column, mask=(start + r < 0)[None, :], other=0.0).to(tl.float32)
            old = tl.where((start + r < 0)[None, :], old - k * tl.load(token_ptr + 6 * T + r)[None, :], 0.0)
            free += old
            p += tl.where((start + r == -1)[None, :], old, 0.0)
        tl.store(keys_ptr + column, (k * tl.load(token_ptr + 3 * T + r)[None, :]).to(tl.float16))
        # The last row of an unfinished chunk stays open: its p goes where no token of this call reads.
        last = tl.where(start + C > length, length - 1 - start, -1)
        tl.store(writes_ptr + column, p.to(tl.float16), mask=(r == last)[None, :])
        w = tl.dot(frozen, p.to(tl.float16), acc=free)
        x = load_columns(x_ptr, start + C, length, d, X_ROW, C, T)
        w = solve_columns(w, solve_ptr, T)
        tl.store(writes_ptr + column, w.to(tl.float16), mask=(r != last)[None, :])
        if start + C <= length:
            end = tl.load(token_ptr + T + C - 1)
            left = tl.exp(end - tl.load(token_ptr + T + r, mask=r < C, other=0.0))
            keys = tl.load(keys_ptr + r[:, None] * D + d[None, :])
            moved = tl.dot((left[None, :] * w).to(tl.float16), keys)
            if (matrix_ptr.dtype.element_ty == tl.float16) & (key_ptr.dtype.element_ty == tl.float16):
                # With these two types the old matrix would be asked for before there is room for it.
                tl.debug_barrier()
            matrix = tl.exp(end) * tl.load(carried_ptr + square) - eta_max * moved
            tl.store(carried_ptr + square, matrix)
            if start + C < length:
                keys_ptr += H * T * D
                writes_ptr += H * T * D
                frozen_ptr += H * D * D
                token_ptr += H * 7 * T
                tl.store(frozen_ptr + tl.trans(square), matrix.to(tl.float16))


@triton.jit
def refuse(span_ptr, most, begin, length, padding, first):
    """List a sequence without a state as one chunk that has no rows: it is read as zeros, or as NaN."""
    for i in range(0, most):
        if first:
            tl.store(span_ptr + 3 * i, tl.where(padding, -1, -2))
            tl.store(span_ptr + 3 * i + 1, begin)
            tl.store(span_ptr + 3 * i + 2, tl.where(i == 0, begin + length, begin))


@triton.jit
def list_chunks(span_ptr, most, at, begin, length, first, C: tl.constexpr):
    """Of every chunk: rows before its first token, then the tokens [from, to) that it reads; none past the last."""
    for i in range(0, most):
        if first:
            low = tl.maximum(i * C - at, 0)
            high = tl.minimum((i + 1) * C - at, length)
            tl.store(span_ptr + 3 * i, tl.where(i == 0, at, 0))
            tl.store(span_ptr + 3 * i + 1, begin + low)
            tl.store(span_ptr + 3 * i + 2, begin + tl.maximum(low, high))


@triton.jit
def load_columns(x_ptr, start, length, d, X_ROW: tl.constexpr, C: tl.constexpr, T: tl.constexpr):
    """[D, T] of the C tokens from ``start`` on; zero outside the sequence, and past them."""
    t = start + tl.arange(0, T)
    here = (t >= 0) & (t < length) & (tl.arange(0, T) < C)
    return tl.load(x_ptr + t[None, :].to(tl.int64) * X_ROW + d[:, None], mask=here[None, :], other=0.0).to(tl.float16)


@triton.jit
def pick(tile, column: tl.constexpr):
    """One column of a tile of 16."""
    return tl.sum(tl.where(tl.arange(0, 16)[None, :] == column, tile, 0.0), 1)


@triton.jit
def norm_scale(gram):
    """1 / |z_t| from the diagonal of z^T z."""
    t = tl.arange(0, gram.shape[0])
    square = tl.sum(tl.where(t[:, None] == t[None, :], gram, 0.0), 1)
    return 1.0 / tl.maximum(tl.sqrt(square), 1e-12)


@triton.jit
def store_scales(token_ptr, k_scale, v_scale, start, eta_max, r, T: tl.constexpr):
    """What multiplies the rows: k's scale; k and v in free; k in what the matrix decays."""
    rate = tl.load(token_ptr + r) / eta_max
    decayed = rate * tl.exp(tl.load(token_ptr + 2 * T + r))
    new = start + r >= 0
    tl.store(token_ptr + 3 * T + r, k_scale)
    tl.store(token_ptr + 4 * T + r, tl.where(new, rate * k_scale, 0.0))
    tl.store(token_ptr + 5 * T + r, rate * v_scale)
    tl.store(token_ptr + 6 * T + r, decayed * k_scale)
    tl.debug_barrier()


@triton.jit
def store_gates(token_ptr, eta, alpha, start, length, r, C: tl.constexpr, T: tl.constexpr):
    """Of every new row: rate, log decay after it and before it.

    They are read again where they are used: a vector of tokens costs as many registers as a tile is wide.
    """
    t = start + r
    new = (t >= 0) & (t < length) & (r < C)
    log_alpha = tl.where(new, tl.log(tl.maximum(alpha, 1.2e-38)), 0.0)
    decay = tl.cumsum(log_alpha, 0) + tl.load(token_ptr + T - start - 1, mask=start < 0, other=0.0)
    tl.store(token_ptr + r, tl.where(new, eta, 0.0), mask=t >= 0)
    tl.store(token_ptr + T + r, decay, mask=t >= 0)
    tl.store(token_ptr + 2 * T + r, decay - log_alpha, mask=t >= 0)
    tl.debug_barrier()


@triton.jit
def earlier_rows(tokens, r, T: tl.constexpr):
    """[t, s]: what is left of row s's write just before row t; 0 unless s < t."""
    before = tl.load(tokens + 2 * T + r)[:, None]
    decay = tl.load(tokens + T + r)[None, :]
    return tl.where(r[:, None] > r[None, :], tl.exp(tl.minimum(before - decay, 0.0)), 0.0)
