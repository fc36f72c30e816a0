# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a program does with one MLP memory of one sequence's head: BLOCK hidden units of both matrices at a time.

W2 comes in whole rows, W1 in BLOCK columns, so a hidden unit is finished before the next block is read and nothing
is read twice. A row of W2 is taken as D / LINE lines of LINE numbers, [BLOCK, D / LINE, LINE]: a sum over a row then
crosses the few threads that share a line of 128 bytes, not a whole warp. Sums over W1's columns cross none.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(z):
    """z sigmoid(z)."""
    return z * tl.sigmoid(z)


@triton.jit
def inverse_norm(ptr, D: tl.constexpr):
    """One over the L2 norm of D numbers."""
    q = tl.load(ptr + tl.arange(0, D)).to(tl.float32)
    return 1.0 / tl.maximum(tl.sqrt(tl.sum(q * q)), 1e-12)


@triton.jit
def add_two(a0, a1, b0, b1):
    """Sums of two at once."""
    return a0 + b0, a1 + b1


@triton.jit
def add_three(a0, a1, a2, b0, b1, b2):
    """Sums of three at once, so that threads meet once."""
    return a0 + b0, a1 + b1, a2 + b2


@triton.jit
def in_lines(ptr, D: tl.constexpr, LINE: tl.constexpr):
    """D numbers as [1, D / LINE, LINE], fp32."""
    at = tl.arange(0, D // LINE)[:, None] * LINE + tl.arange(0, LINE)[None, :]
    return tl.load(ptr + at).to(tl.float32)[None, :, :]


@triton.jit
def load_rows(inner, f, D: tl.constexpr, LINE: tl.constexpr):
    """Rows f of W2 in lines, [BLOCK, D / LINE, LINE], fp32."""
    lines = tl.arange(0, D // LINE)[None, :, None] * LINE + tl.arange(0, LINE)[None, None, :]
    return tl.load(inner + f[:, None, None] * D + lines, eviction_policy="evict_first").to(tl.float32)


@triton.jit
def times(rows, x):
    """Rows in lines times x in lines, [BLOCK]."""
    return tl.sum(tl.sum(rows * x, 1), 1)


@triton.jit
def sum_near(tile, NEAR: tl.constexpr):
    """[D, BLOCK / NEAR]: sums of the columns that one load brings to a thread, so that fewer numbers are carried."""
    return tl.sum(tl.reshape(tile, (tile.shape[0], tile.shape[1] // NEAR, NEAR)), 2)


@triton.jit
def read_learned(
    x_ptr,
    inner,
    outer,
    seen,
    hidden,
    wrote,
    D: tl.constexpr,
    F: tl.constexpr,
    LINE: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """hidden = silu(seen + D2 x) and wrote = D1 hidden, with D2, D1 what the memory learned and seen = W2_0 x."""
    d = tl.arange(0, D)
    x = in_lines(x_ptr, D, LINE)
    total = tl.zeros((D, BLOCK // NEAR), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        rows = load_rows(inner, f, D, LINE)
        columns = tl.load(outer + d[:, None] * F + f[None, :], eviction_policy="evict_first").to(tl.float32)
        z = silu(tl.load(seen + f) + times(rows, x))
        tl.store(hidden + f, z)
        total += sum_near(columns * z[None, :], NEAR)
    tl.store(wrote + d, tl.sum(total, 1))


@triton.jit
def read_gates(
    x_ptr,
    inner,
    outer,
    initial,
    seen,
    raw,
    D: tl.constexpr,
    F: tl.constexpr,
    LINE: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """raw = (W1_0 + D1) silu(seen + D2 x) of eta and of alpha, one number each, both in one loop."""
    x = in_lines(x_ptr, D, LINE)
    total_eta = tl.zeros((BLOCK,), tl.float32)
    total_alpha = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        eta = tl.sum(load_rows(inner, f, D, LINE) * x, 1)
        alpha = tl.sum(load_rows(inner + F * D, f, D, LINE) * x, 1)
        eta, alpha = tl.reduce((eta, alpha), 1, add_two)
        weight = tl.load(outer + f).to(tl.float32) + tl.load(initial + f).to(tl.float32)
        total_eta += weight * silu(tl.load(seen + f) + eta)
        weight = tl.load(outer + F + f).to(tl.float32) + tl.load(initial + F + f).to(tl.float32)
        total_alpha += weight * silu(tl.load(seen + F + f) + alpha)
    tl.store(raw, tl.sum(total_eta))
    tl.store(raw + 1, tl.sum(total_alpha))


@triton.jit
def read_frozen(
    q_ptr,
    inner,
    outer,
    outer0,
    seen,
    out,
    D: tl.constexpr,
    F: tl.constexpr,
    LINE: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """out = q + (W1_0 + D1) silu(seen + D2 q) for q of unit length: the snapshot alone."""
    d = tl.arange(0, D)
    scale = inverse_norm(q_ptr, D)
    asked = scale * in_lines(q_ptr, D, LINE)
    total = tl.zeros((D, BLOCK // NEAR), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        rows = load_rows(inner, f, D, LINE)
        columns = tl.load(outer + d[:, None] * F + f[None, :], eviction_policy="evict_first").to(tl.float32)
        columns += tl.load(outer0 + d[:, None] * F + f[None, :], eviction_policy="evict_last").to(tl.float32)
        z = silu(tl.load(seen + f) + times(rows, asked))
        total += sum_near(columns * z[None, :], NEAR)
    q = scale * tl.load(q_ptr + d).to(tl.float32)
    tl.store(out + d, (q + tl.sum(total, 1)).to(out.dtype.element_ty))
