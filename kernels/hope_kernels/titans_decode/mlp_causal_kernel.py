# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The MLP memory that is read through the rows of its chunk: its open row is closed on the way."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_decode.mlp_memory_kernel import silu, unit


@triton.jit
def mlp_causal_kernel(
    q_ptr,
    slots_ptr,
    inner_ptr,
    outer_ptr,
    ring_k_ptr,
    ring_v_ptr,
    ring_e_ptr,
    ring_u_ptr,
    ring_a_ptr,
    ring_gate_ptr,
    position_ptr,
    outer0_ptr,
    seen_ptr,
    kept_ptr,
    out_ptr,
    inner_stride,
    outer_stride,
    narrow_stride,
    wide_stride,
    ring_gate_stride,
    position_stride,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """out = M_memory,t-1(q) for q of unit length. Grid: sequence x head.

    seen: [B, H, 7, F] fp32, of which the last three are the initial W2's products with q, the open k and the open v.
    kept: [B, H, 4, F] of room. A sequence in the null slot gets zeros; one whose slot does not exist, or whose ring
    is full, gets NaN and changes nothing.
    """
    sequence_head = tl.program_id(0)
    h = sequence_head % H
    d = tl.arange(0, D)
    out_ptr += sequence_head * D
    slot = (sequence_head // H).to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + slot).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            nothing = tl.full((D,), 0.0, tl.float32)
            tl.store(out_ptr + d, tl.where(slot == 0, nothing, float("nan")))
            return
    n = tl.load(position_ptr + slot * position_stride + h)
    if n >= C:
        tl.store(out_ptr + d, tl.full((D,), float("nan"), tl.float32))
        return
    inner_ptr += slot * inner_stride + (h * 5 + 4) * F * D
    outer_ptr += slot * outer_stride + (h * 3 + 2) * D * F
    outer0_ptr += (h * 3 + 2) * D * F
    narrow = slot * narrow_stride + h * C * D
    wide = slot * wide_stride + h * C * F
    seen_ptr += (sequence_head * 7 + 4) * F
    kept_ptr += sequence_head * 4 * F
    ring_k_ptr += narrow
    ring_e_ptr += narrow
    ring_gate_ptr += slot * ring_gate_stride + h * C * 2

    q = unit(q_ptr + sequence_head * D, D)
    opened = (d < D) & (n > 0)
    k = tl.load(ring_k_ptr + (n - 1) * D + d, mask=opened, other=0.0).to(tl.float32)
    v = tl.load(ring_v_ptr + narrow + (n - 1) * D + d, mask=opened, other=0.0).to(tl.float32)
    e = close_error(q, k, v, inner_ptr, outer_ptr, outer0_ptr, seen_ptr, kept_ptr, D, F, BLOCK, STAGES)
    tl.store(ring_e_ptr + (n - 1) * D + d, e.to(ring_e_ptr.dtype.element_ty), mask=opened)
    tl.debug_barrier()

    s = tl.arange(0, ROWS)
    closed = s < n - 1
    by_k, by_q = overlaps(ring_k_ptr, q_ptr + sequence_head * D, n, D, ROWS)
    eta = tl.load(ring_gate_ptr + 2 * n - 2, mask=n > 0, other=0.0)
    decay = tl.load(ring_gate_ptr + 2 * n - 1, mask=n > 0, other=0.0)
    before = tl.load(ring_gate_ptr + 2 * n - 3, mask=n > 1, other=0.0)
    row_decay = tl.load(ring_gate_ptr + 2 * s + 1, mask=closed, other=0.0)
    by_k = eta * tl.where(closed, by_k * tl.exp(before - row_decay), 0.0)
    by_q = tl.where(closed, by_q * tl.exp(decay - row_decay), 0.0)
    open_q = tl.sum(k * q)
    total = tl.zeros((D, BLOCK), tl.float32)
    by_hidden = tl.zeros((ROWS,), tl.float32)
    open_hidden = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=2):
        f = start + tl.arange(0, BLOCK)
        columns = tl.load(outer_ptr + d[:, None] * F + f[None, :]).to(tl.float32)
        first = tl.load(outer0_ptr + d[:, None] * F + f[None, :], eviction_policy="evict_last").to(tl.float32)
        row = wide + s[:, None] * F + f[None, :]
        row_u = tl.load(ring_u_ptr + row, mask=closed[:, None], other=0.0).to(tl.float32)
        row_a = tl.load(ring_a_ptr + row, mask=closed[:, None], other=0.0).to(tl.float32)
        pulled = tl.load(kept_ptr + 2 * F + f) * tl.sum((columns + first) * e[:, None], 0)
        u = eta * (tl.exp(before) * tl.load(kept_ptr + f) + pulled) - tl.sum(row_u * by_k[:, None], 0)
        z = tl.load(seen_ptr + f) + tl.exp(decay) * tl.load(kept_ptr + F + f) - tl.sum(row_u * by_q[:, None], 0)
        z = silu(z - open_q * u)
        a = tl.load(kept_ptr + 3 * F + f)
        at = wide + (n - 1) * F + f
        tl.store(ring_u_ptr + at, u.to(ring_u_ptr.dtype.element_ty), mask=(f < F) & (n > 0))
        tl.store(ring_a_ptr + at, a.to(ring_a_ptr.dtype.element_ty), mask=(f < F) & (n > 0))
        by_hidden += tl.sum(row_a * z[None, :], 1)
        open_hidden += a * z
        total += (tl.exp(decay) * columns + first) * z[None, :]
    row_eta = tl.load(ring_gate_ptr + 2 * s, mask=closed, other=0.0)
    weight = tl.where(closed, by_hidden * row_eta * tl.exp(decay - row_decay), 0.0)
    read = q + tl.sum(total, 1) - eta * tl.sum(open_hidden) * e
    tl.debug_barrier()  # the loop above may still be reading what is overwritten here
    tl.store(kept_ptr + d, read, mask=d < D)
    tl.debug_barrier()
    for start in tl.range(0, D, 16, num_stages=1):
        part = start + tl.arange(0, 16)
        errors = tl.load(ring_e_ptr + s[:, None] * D + part[None, :], mask=closed[:, None], other=0.0).to(tl.float32)
        rest = tl.load(kept_ptr + part) - tl.sum(errors * weight[:, None], 0)
        tl.store(out_ptr + part, rest.to(out_ptr.dtype.element_ty))


@triton.jit
def close_error(
    q,
    k,
    v,
    inner,
    outer,
    outer0,
    seen,
    kept,
    D: tl.constexpr,
    F: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """e = M(k) - M(v) of the open row; kept [4, F] = D2 k, D2 q, silu'(W2 k), silu(W2 k)."""
    d = tl.arange(0, D)
    total = tl.zeros((D, BLOCK), tl.float32)
    for start in tl.range(0, F, BLOCK, num_stages=STAGES):
        f = start + tl.arange(0, BLOCK)
        rows = tl.load(inner + f[:, None] * D + d[None, :], eviction_policy="evict_first").to(tl.float32)
        columns = tl.load(outer + d[:, None] * F + f[None, :]).to(tl.float32)
        columns += tl.load(outer0 + d[:, None] * F + f[None, :], eviction_policy="evict_last").to(tl.float32)
        by_k = tl.sum(rows * k[None, :], 1)
        z = tl.load(seen + F + f) + by_k
        gate = tl.sigmoid(z)
        tl.store(kept + f, by_k)
        tl.store(kept + F + f, tl.sum(rows * q[None, :], 1))
        tl.store(kept + 2 * F + f, gate * (1.0 + z * (1.0 - gate)))
        tl.store(kept + 3 * F + f, z * gate)
        other = silu(tl.load(seen + 2 * F + f) + tl.sum(rows * v[None, :], 1))
        total += columns * (z * gate - other)[None, :]
    return k - v + tl.sum(total, 1)


@triton.jit
def overlaps(ring_k, q_ptr, n, D: tl.constexpr, ROWS: tl.constexpr):
    """The last key of n, and q over its norm, times the keys before the last, [ROWS] each."""
    s = tl.arange(0, ROWS)
    by_k = tl.zeros((ROWS,), tl.float32)
    by_q = tl.zeros((ROWS,), tl.float32)
    square = 0.0
    for start in tl.range(0, D, 16, num_stages=1):
        part = start + tl.arange(0, 16)
        keys = tl.load(ring_k + s[:, None] * D + part[None, :], mask=(s < n - 1)[:, None], other=0.0).to(tl.float32)
        k = tl.load(ring_k + (n - 1) * D + part, mask=(part < D) & (n > 0), other=0.0).to(tl.float32)
        q = tl.load(q_ptr + part).to(tl.float32)
        by_k += tl.sum(keys * k[None, :], 1)
        by_q += tl.sum(keys * q[None, :], 1)
        square += tl.sum(q * q)
    return by_k, by_q / tl.maximum(tl.sqrt(square), 1e-12)
