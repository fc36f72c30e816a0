# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The adjoint of a chunk's triangular solve, and what else the backward needs that no later chunk changes."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_chunk.solve_kernel import inverse_less_identity
from hope_kernels.titans_chunk.write_kernel import earlier_rows


@triton.jit
def backward_solve_kernel(
    x_ptr,
    value_ptr,
    span_ptr,
    keys_ptr,
    frozen_ptr,
    token_ptr,
    values_ptr,
    v_scale_ptr,
    rows_ptr,
    reach_ptr,
    by_rows_ptr,
    lower_ptr,
    count,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """(Chunk, head) after (chunk, head), as many programs as have room in ``lower``; tiles are [D, T].

    values, v_scale: v and one over its length before the norm; rows: p. reach: Z with (I + L)^T Z = diag(g_C / g) K,
    through which the next snapshot's gradient reaches the rows; by_rows: from the writes' gradient to the rows',
    in place.
    """
    d, r = tl.arange(0, D), tl.arange(0, T)
    square = d[:, None] * D + d[None, :]
    lower_ptr += tl.program_id(0) * 2 * T * T
    for first in tl.range(0, count * H, tl.num_programs(0), num_stages=1, disable_licm=True):
        at_chunk = first + tl.program_id(0).to(tl.int64)
        chunk, h = at_chunk // H, at_chunk % H
        inside = at_chunk < count * H
        before_first = tl.load(span_ptr + 3 * chunk, mask=inside, other=-1)
        low = tl.load(span_ptr + 3 * chunk + 1, mask=inside, other=0)
        high = tl.load(span_ptr + 3 * chunk + 2, mask=inside, other=0)
        if (low < high) & (before_first >= 0):
            tile = at_chunk * T * D + r[None, :] * D + d[:, None]
            tokens = token_ptr + at_chunk * 7 * T
            keys = tl.load(keys_ptr + tile)
            gram = tl.dot(tl.trans(keys), keys)
            lower = gram * tl.load(tokens + r)[:, None] * earlier_rows(tokens, r, T)
            tl.store(lower_ptr + r[:, None] * T + r[None, :], lower)
            tl.debug_barrier()
            solved = inverse_less_identity(lower_ptr, T, False).to(tl.float16)
            left = tl.exp(tl.minimum(tl.load(tokens + T + C - 1) - tl.load(tokens + T + r), 0.0))
            kept = tl.load(keys_ptr + tile).to(tl.float32) * left[None, :]
            tl.store(reach_ptr + tile, tl.dot(kept.to(tl.float16), solved, acc=kept).to(tl.float16))
            if CAUSAL:
                tl.debug_barrier()
                rows = tl.load(by_rows_ptr + tile)
                tl.store(by_rows_ptr + tile, tl.dot(rows, solved, acc=rows.to(tl.float32)).to(tl.float16))

            tl.debug_barrier()
            t = low - before_first + r
            here = ((t >= low) & (t < high))[None, :]
            columns = x_ptr + t[None, :].to(tl.int64) * (H * D) + h * D + d[:, None]
            x = tl.load(columns, mask=here, other=0.0).to(tl.float16)
            seen = tl.dot(tl.load(frozen_ptr + at_chunk * D * D + square), x, acc=x.to(tl.float32))
            tl.debug_barrier()
            value = tl.load(value_ptr + h * D * D + square).to(tl.float16)
            v = tl.dot(value, seen.to(tl.float16))
            norm = tl.sqrt(tl.sum(v * v, 0))
            norm = tl.where(norm > 1e-12, 1.0 / tl.maximum(norm, 1e-12), 0.0)
            tl.store(v_scale_ptr + at_chunk * T + r, norm)
            v *= norm[None, :]
            tl.store(values_ptr + tile, v.to(tl.float16))
            tl.debug_barrier()
            k = tl.load(keys_ptr + tile).to(tl.float32)
            p = tl.load(tokens + r)[None, :] * ((1.0 + tl.exp(tl.load(tokens + 2 * T + r)))[None, :] * k - v)
            tl.store(rows_ptr + tile, p.to(tl.float16))
            tl.debug_barrier()
