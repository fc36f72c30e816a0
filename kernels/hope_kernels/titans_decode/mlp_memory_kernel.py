# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a program does with one MLP memory of one sequence's head: BLOCK hidden units of both matrices at a time.

W2 comes in whole rows, W1 in BLOCK columns, so a hidden unit is finished before the next block is read and nothing
is read twice.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(z):
    """z sigmoid(z)."""
    return z * tl.sigmoid(z)


@triton.jit
def unit(ptr, D: tl.constexpr):
    """D numbers over their L2 norm, fp32."""
    q = tl.load(ptr + tl.arange(0, D)).to(tl.float32)
    return q / tl.maximum(tl.sqrt(tl.sum(q * q)), 1e-12)


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
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """hidden = silu(seen + D2 x) and wrote = D1 hidden, with D2, D1 what the memory learned and seen = W2_0 x."""
    d = tl.arange(0, D)
    x = tl.load(x_ptr + d).to(tl.float32)
    total = tl.zeros((D, BLOCK), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        rows = tl.load(inner + f[:, None] * D + d[None, :], eviction_policy="evict_first").to(tl.float32)
        columns = tl.load(outer + d[:, None] * F + f[None, :], eviction_policy="evict_first").to(tl.float32)
        z = silu(tl.load(seen + f) + tl.sum(rows * x[None, :], 1))
        tl.store(hidden + f, z)
        total += columns * z[None, :]
    tl.store(wrote + d, tl.sum(total, 1))


@triton.jit
def read_gates(
    x_ptr, inner, outer, initial, seen, raw, D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr
):
    """raw = (W1_0 + D1) silu(seen + D2 x) of eta and of alpha, one number each, both in one loop."""
    d = tl.arange(0, D)
    x = tl.load(x_ptr + d).to(tl.float32)
    total_eta = tl.zeros((BLOCK,), tl.float32)
    total_alpha = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        tile = inner + f[:, None] * D + d[None, :]
        eta = tl.load(tile, eviction_policy="evict_first").to(tl.float32)
        alpha = tl.load(tile + F * D, eviction_policy="evict_first").to(tl.float32)
        weight = tl.load(outer + f).to(tl.float32) + tl.load(initial + f).to(tl.float32)
        total_eta += weight * silu(tl.load(seen + f) + tl.sum(eta * x[None, :], 1))
        weight = tl.load(outer + F + f).to(tl.float32) + tl.load(initial + F + f).to(tl.float32)
        total_alpha += weight * silu(tl.load(seen + F + f) + tl.sum(alpha * x[None, :], 1))
    tl.store(raw, tl.sum(total_eta))
    tl.store(raw + 1, tl.sum(total_alpha))


@triton.jit
def read_frozen(
    q_ptr, inner, outer, outer0, seen, out, D: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr
):
    """out = q + (W1_0 + D1) silu(seen + D2 q) for q of unit length: the snapshot alone."""
    d = tl.arange(0, D)
    q = unit(q_ptr, D)
    total = tl.zeros((D, BLOCK), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        rows = tl.load(inner + f[:, None] * D + d[None, :], eviction_policy="evict_first").to(tl.float32)
        columns = tl.load(outer + d[:, None] * F + f[None, :], eviction_policy="evict_first").to(tl.float32)
        columns += tl.load(outer0 + d[:, None] * F + f[None, :], eviction_policy="evict_last").to(tl.float32)
        total += columns * silu(tl.load(seen + f) + tl.sum(rows * q[None, :], 1))[None, :]
    tl.store(out + d, (q + tl.sum(total, 1)).to(out.dtype.element_ty))
