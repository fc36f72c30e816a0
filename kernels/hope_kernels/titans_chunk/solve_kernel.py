# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The triangular solve of a chunk: w (I + lower)^-T for rows w, as a product of factors that are near the identity."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_chunk.product_kernel import operand, product


@triton.jit
def invert_diagonal(lower_ptr, N: tl.constexpr):
    """(I + lower)^-1 - I of the 16 x 16 blocks on the diagonal of a strictly lower triangular [N, N].

    Forward substitution in fp32, all blocks at once; N is 16, 32 or 64.

    Args:
        lower_ptr: N N fp32 with ``lower``, and N N behind it to work in.
    """
    r, c, s = tl.arange(0, N), tl.arange(0, N), tl.arange(0, 16)
    # Row c of ``columns`` is column c of the block that c lies in.
    first = c // 16 * 16
    columns = tl.zeros((N, 16), tl.float32)
    for i in tl.range(0, 16, num_stages=1):
        row = tl.load(lower_ptr + (first + i)[:, None] * N + first[:, None] + s[None, :])
        solved = tl.where(c % 16 == i, 1.0, 0.0) - tl.sum(row * columns, 1)
        columns = tl.where((s == i)[None, :], solved[:, None], columns)
    columns = tl.where((s == c[:, None] % 16), 0.0, columns)
    blocks_ptr = lower_ptr + N * N
    tl.store(blocks_ptr + (first[:, None] + s[None, :]) * N + c[:, None], columns)
    tl.debug_barrier()
    inside = (r // 16)[:, None] == (c // 16)[None, :]
    return tl.load(blocks_ptr + r[:, None] * N + c[None, :], mask=inside, other=0.0)


@triton.jit
def solve_columns(w, lower_ptr, N: tl.constexpr):
    """Each row of w [D, N] times (I + lower)^-T; ``lower_ptr`` as for ``invert_diagonal``, behind a barrier.

    (I + lower)^-1 = (I + Y^2) (I + Y) (I + X) with X of the diagonal blocks and Y nilpotent, of order 4 at most.
    Only products with X, Y and Y^2 see the rounding of fp16; what the identities carry stays fp32.
    """
    blocks = invert_diagonal(lower_ptr, N).to(tl.float16)
    w += tl.dot(w.to(tl.float16), tl.trans(blocks))
    if N > 16:
        r, c = tl.arange(0, N), tl.arange(0, N)
        outside = (r // 16)[:, None] > (c // 16)[None, :]
        below = tl.load(lower_ptr + r[:, None] * N + c[None, :], mask=outside, other=0.0)
        step = (-below - tl.dot(blocks, below.to(tl.float16))).to(tl.float16)
        w += tl.dot(w.to(tl.float16), tl.trans(step))
        if N == 64:
            twice = tl.dot(step, step).to(tl.float16)
            w += tl.dot(w.to(tl.float16), tl.trans(twice))
    return w


@triton.jit
def inverse_less_identity(lower_ptr, N: tl.constexpr, EXACT: tl.constexpr):
    """(I + lower)^-1 - I of a strictly lower triangular [N, N] in fp32, from the factors of ``solve_columns``."""
    blocks = invert_diagonal(lower_ptr, N)
    if N > 16:
        r, c = tl.arange(0, N), tl.arange(0, N)
        outside = (r // 16)[:, None] > (c // 16)[None, :]
        below = tl.load(lower_ptr + r[:, None] * N + c[None, :], mask=outside, other=0.0)
        narrow = operand(blocks, EXACT)
        step = -below - product(narrow, operand(below, EXACT), None, EXACT)
        step_narrow = operand(step, EXACT)
        blocks += step + product(step_narrow, narrow, None, EXACT)
        if N == 64:
            twice = product(step_narrow, step_narrow, None, EXACT)
            blocks += twice + product(operand(twice, EXACT), operand(blocks, EXACT), None, EXACT)
    return blocks
