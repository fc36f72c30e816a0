# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The MLP memory that is read through the rows of its chunk: its open row is closed on the way."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_decode.mlp_memory_kernel import add_three, in_lines, inverse_norm, load_rows, silu, sum_near
from hope_kernels.titans_decode.mlp_ring_kernel import asked_rows, mix_rows


@triton.jit
def read_causally(
    q_ptr,
    inner_ptr,
    outer_ptr,
    outer0_ptr,
    ring_k_ptr,
    ring_v_ptr,
    ring_e_ptr,
    ring_u_ptr,
    ring_a_ptr,
    gate_ptr,
    n,
    seen_ptr,
    kept_ptr,
    out_ptr,
    D: tl.constexpr,
    F: tl.constexpr,
    ROOM: tl.constexpr,
    LINE: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    RING_ROWS: tl.constexpr,
    RING_DOTS: tl.constexpr,
):
    """out = M_memory,t-1(q) for q of unit length, one sequence's head with n < C rows in its ring.

    seen: [3, F] fp32, the initial W2's products with q, the open k and the open v. kept: [8, ROOM] of room, ROOM at
    least D and F. W1 comes from memory once; its second pass, for which the first pass' error is needed, starts where
    the first ended, with what the cache still has.
    """
    d = tl.arange(0, D)
    opened = n > 0
    open_row = tl.maximum(n - 1, 0) * D
    scale = inverse_norm(q_ptr, D)
    e = close_error(
        q_ptr, scale, ring_k_ptr + open_row, ring_v_ptr + open_row, opened, inner_ptr, outer_ptr, outer0_ptr, seen_ptr,
        kept_ptr, D, F, ROOM, LINE, NEAR, BLOCK, STAGES,
    )  # fmt: skip
    tl.store(ring_e_ptr + open_row + d, e.to(ring_e_ptr.dtype.element_ty), mask=(d < D) & opened)
    eta = tl.load(gate_ptr + 2 * n - 2, mask=opened, other=0.0)
    decay = tl.load(gate_ptr + 2 * n - 1, mask=opened, other=0.0)
    before = tl.load(gate_ptr + 2 * n - 3, mask=n > 1, other=0.0)
    q = scale * tl.load(q_ptr + d).to(tl.float32)
    k = tl.load(ring_k_ptr + open_row + d, mask=(d < D) & opened, other=0.0).to(tl.float32)
    asked = asked_rows(q, k, RING_DOTS)
    until = tl.where(tl.arange(0, asked.shape[0])[:, None] % 8 == 0, decay, before)
    mix_rows(
        asked, until, ring_k_ptr, ring_u_ptr, gate_ptr, kept_ptr + 4 * ROOM, n - 1,
        D, F, ROOM, 2, False, RING_ROWS, RING_DOTS,
    )  # fmt: skip
    tl.debug_barrier()

    open_q = tl.sum(k * q)
    total = tl.zeros((D, BLOCK // NEAR), tl.float32)
    open_hidden = tl.zeros((BLOCK,), tl.float32)
    for back in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = F - BLOCK - back + tl.arange(0, BLOCK)
        columns = tl.load(outer_ptr + d[:, None] * F + f[None, :], eviction_policy="evict_first").to(tl.float32)
        first = tl.load(outer0_ptr + d[:, None] * F + f[None, :], eviction_policy="evict_last").to(tl.float32)
        pulled = tl.load(kept_ptr + 2 * ROOM + f) * tl.sum((columns + first) * e[:, None], 0)
        u = eta * (tl.exp(before) * tl.load(kept_ptr + f) + pulled - tl.load(kept_ptr + 5 * ROOM + f))
        z = tl.load(seen_ptr + f) + tl.exp(decay) * tl.load(kept_ptr + ROOM + f) - tl.load(kept_ptr + 4 * ROOM + f)
        z = silu(z - open_q * u)
        a = tl.load(kept_ptr + 3 * ROOM + f)
        at = tl.maximum(n - 1, 0) * F + f
        tl.store(ring_u_ptr + at, u.to(ring_u_ptr.dtype.element_ty), mask=(f < F) & opened)
        tl.store(ring_a_ptr + at, a.to(ring_a_ptr.dtype.element_ty), mask=(f < F) & opened)
        tl.store(kept_ptr + 6 * ROOM + f, z)
        open_hidden += a * z
        total += sum_near((tl.exp(decay) * columns + first) * z[None, :], NEAR)
    read = tl.sum(total, 1) - eta * tl.sum(open_hidden) * e
    tl.debug_barrier()
    z = tl.load(kept_ptr + 6 * ROOM + tl.arange(0, F))
    asked = asked_rows(z, tl.zeros((F,), tl.float32), RING_DOTS)
    mix_rows(
        asked, decay, ring_a_ptr, ring_e_ptr, gate_ptr, kept_ptr + 7 * ROOM, n - 1,
        F, D, ROOM, 1, True, RING_ROWS, RING_DOTS,
    )  # fmt: skip
    tl.debug_barrier()
    read += scale * tl.load(q_ptr + d).to(tl.float32) - tl.load(kept_ptr + 7 * ROOM + d)
    tl.store(out_ptr + d, read.to(out_ptr.dtype.element_ty))


@triton.jit
def close_error(
    q_ptr,
    scale,
    k_ptr,
    v_ptr,
    opened,
    inner,
    outer,
    outer0,
    seen,
    kept,
    D: tl.constexpr,
    F: tl.constexpr,
    ROOM: tl.constexpr,
    LINE: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """e = M(k) - M(v) of the open row; the first rows of kept = D2 k, D2 q, silu'(W2 k), silu(W2 k)."""
    d = tl.arange(0, D)
    q = scale * in_lines(q_ptr, D, LINE)
    k = tl.where(opened, in_lines(k_ptr, D, LINE), 0.0)
    v = tl.where(opened, in_lines(v_ptr, D, LINE), 0.0)
    total = tl.zeros((D, BLOCK // NEAR), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        rows = load_rows(inner, f, D, LINE)
        columns = tl.load(outer + d[:, None] * F + f[None, :]).to(tl.float32)
        columns += tl.load(outer0 + d[:, None] * F + f[None, :], eviction_policy="evict_last").to(tl.float32)
        by_k, by_q, by_v = tl.sum(rows * k, 1), tl.sum(rows * q, 1), tl.sum(rows * v, 1)
        by_k, by_q, by_v = tl.reduce((by_k, by_q, by_v), 1, add_three)
        z = tl.load(seen + F + f) + by_k
        gate = tl.sigmoid(z)
        tl.store(kept + f, by_k)
        tl.store(kept + ROOM + f, by_q)
        tl.store(kept + 2 * ROOM + f, gate * (1.0 + z * (1.0 - gate)))
        tl.store(kept + 3 * ROOM + f, z * gate)
        total += sum_near(columns * (z * gate - silu(tl.load(seen + 2 * F + f) + by_v))[None, :], NEAR)
    k = tl.load(k_ptr + d, mask=(d < D) & opened, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + d, mask=(d < D) & opened, other=0.0).to(tl.float32)
    return k - v + tl.sum(total, 1)
