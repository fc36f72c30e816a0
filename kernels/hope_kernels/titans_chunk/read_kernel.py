# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What the tokens of one chunk read: chunks are independent once their writes are known."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_chunk.write_kernel import earlier_rows


@triton.jit
def unit_columns(columns):
    """Each column over its L2 norm."""
    return columns / tl.maximum(tl.sqrt(tl.sum(columns * columns, 0)), 1e-12)[None, :]


@triton.jit
def read_kernel(
    q_ptr,
    memory_ptr,
    span_ptr,
    keys_ptr,
    writes_ptr,
    frozen_ptr,
    token_ptr,
    out_ptr,
    eta_max,
    H: tl.constexpr,
    D: tl.constexpr,
    T: tl.constexpr,
    Q_ROW: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """Outputs of one (chunk, head); tiles are [D, T]. Q_ROW: from one row of q to the next. Sequences without a state
    are written here, too.
    """
    chunk, h = tl.program_id(0), tl.program_id(1)
    before_first = tl.load(span_ptr + 3 * chunk)
    low, high = tl.load(span_ptr + 3 * chunk + 1), tl.load(span_ptr + 3 * chunk + 2)
    if low == high:
        return
    d, r = tl.arange(0, D), tl.arange(0, T)
    out_ptr += h * D + d[:, None]
    if before_first < 0:
        nothing = tl.where(before_first == -1, 0.0, float("nan")).to(out_ptr.dtype.element_ty)
        for start in range(low, high, T):
            t = (start + r)[None, :]
            tl.store(out_ptr + t.to(tl.int64) * (H * D), tl.zeros((D, T), nothing.dtype) + nothing, mask=t < high)
        return
    t = low - before_first + r
    here = ((t >= low) & (t < high))[None, :]
    columns = t[None, :].to(tl.int64) * (H * D)
    at_chunk = (chunk * H + h).to(tl.int64)
    square = d[:, None] * D + d[None, :]
    tile = at_chunk * T * D + r[None, :] * D + d[:, None]

    q = unit_columns(
        tl.load(q_ptr + h * D + d[:, None] + t[None, :].to(tl.int64) * Q_ROW, mask=here, other=0.0).to(tl.float32)
    )
    narrow = q.to(tl.float16)
    read = tl.dot(tl.load(frozen_ptr + at_chunk * D * D + square), narrow)
    if CAUSAL:
        tokens = token_ptr + at_chunk * 7 * T
        rows = earlier_rows(tokens, r, T) * tl.dot(tl.trans(narrow), tl.load(keys_ptr + tile))
        read *= tl.exp(tl.load(tokens + 2 * T + r))[None, :]
        read -= eta_max * tl.dot(tl.load(writes_ptr + tile), tl.trans(rows.to(tl.float16)))
    memory = tl.load(memory_ptr + h * D * D + square).to(tl.float16)
    out = tl.dot(memory, (q + read).to(tl.float16))
    tl.store(out_ptr + columns, out.to(out_ptr.dtype.element_ty), mask=here)
