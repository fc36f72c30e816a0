# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a token makes of its read: k, v and the gates into the ring, and the output; weights are shared by all slots."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def dot_rows(rows, weight, SPLIT: tl.constexpr):
    """rows [M, J] fp32 times weight [I, J] transposed, fp32 [M, I].

    With SPLIT, rows go in as a sum of two numbers of the weight's own 16-bit type, so nothing of fp32 is lost but
    what the weight never had.
    """
    if SPLIT:
        high = rows.to(weight.dtype)
        low = (rows - high.to(tl.float32)).to(weight.dtype)
        return tl.dot(low, tl.trans(weight), tl.dot(high, tl.trans(weight)))
    return tl.dot(rows, tl.trans(weight.to(tl.float32)), input_precision="tf32x3")


@triton.jit
def add_two(a0, a1, b0, b1):
    """Sums of two at once, so that warps meet once."""
    return a0 + b0, a1 + b1


@triton.jit
def unit_rows(rows, square):
    """Each row over its L2 norm."""
    return rows / tl.maximum(tl.sqrt(square), 1e-12)[:, None]


@triton.jit
def load_parts(rows_ptr, head, there, part, D: tl.constexpr):
    """Columns ``part`` of a row of ``seen`` for every head; fp32 [M, part]."""
    at = head[:, None].to(tl.int64) * (8 * D) + part[None, :]
    return tl.load(rows_ptr + at, mask=there[:, None], other=0.0)


@triton.jit
def project_kernel(
    seen_ptr,
    slots_ptr,
    key_ptr,
    value_ptr,
    memory_ptr,
    gates_ptr,
    bias_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    out_ptr,
    ring_stride,
    gate_stride,
    position_stride,
    num_slots,
    batch,
    eta_max,
    alpha_min,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
    PART: tl.constexpr,
    STAGES: tl.constexpr,
    CLOSE: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """One program a (ROWS of the batch, head, half of the work): 0 appends a row to a ring, 1 reads.

    With OVERLAP it starts while the read still runs: what it loads before ``gdc_wait`` the read does not write. What
    follows it may start at once and waits for all of this kernel in turn. PART = D loads the weights before the wait.
    """
    if OVERLAP:
        gdc_launch_dependents()
    h = tl.program_id(1)
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, D)
    head = m * H + h
    block = head[:, None] * D + d[None, :]
    there = m < batch
    weight = h * D * D + d[:, None] * D
    if tl.program_id(2) == 1:
        if PART == D:
            whole = tl.load(memory_ptr + weight + d[None, :], eviction_policy="evict_last")
            if OVERLAP:
                gdc_wait()
            out = dot_rows(load_parts(seen_ptr + D, head, there, d, D), whole, SPLIT)
        else:
            if OVERLAP:
                gdc_wait()
            out = tl.zeros((ROWS, D), tl.float32)
            for start in tl.range(0, D, PART, num_stages=STAGES):
                part = start + tl.arange(0, PART)
                rows = load_parts(seen_ptr + D, head, there, part, D)
                out += dot_rows(rows, tl.load(memory_ptr + weight + part[None, :], eviction_policy="evict_last"), SPLIT)
        tl.store(out_ptr + block, out.to(out_ptr.dtype.element_ty), mask=there[:, None])
    else:
        bias_eta = tl.load(bias_ptr + 2 * h).to(tl.float32)
        bias_alpha = tl.load(bias_ptr + 2 * h + 1).to(tl.float32)
        slot = m.to(tl.int64)
        if HAS_SLOTS:
            slot = tl.load(slots_ptr + m, mask=there, other=0).to(tl.int64)
            there = there & (slot > 0) & (slot < num_slots)
        n_at = position_ptr + slot * position_stride + h
        n = tl.load(n_at, mask=there, other=0)
        there = there & (n < C)
        gate_at = gate_ptr + slot * gate_stride + (h * C + n) * 2
        decay = tl.load(gate_at - 1, mask=there & (n > 0), other=0.0)
        if PART == D:
            key = tl.load(key_ptr + weight + d[None, :], eviction_policy="evict_last")
            value = tl.load(value_ptr + weight + d[None, :], eviction_policy="evict_last")
            by_eta = tl.load(gates_ptr + h * 2 * D + d).to(tl.float32)
            by_alpha = tl.load(gates_ptr + h * 2 * D + D + d).to(tl.float32)
            if OVERLAP:
                gdc_wait()
            rows = load_parts(seen_ptr, head, there, d, D)
            k = dot_rows(rows, key, SPLIT)
            v = dot_rows(rows, value, SPLIT)
            eta, alpha = tl.reduce((rows * by_eta[None, :], rows * by_alpha[None, :]), 1, add_two)
        else:
            if OVERLAP:
                gdc_wait()
            k = tl.zeros((ROWS, D), tl.float32)
            v = tl.zeros((ROWS, D), tl.float32)
            eta = tl.zeros((ROWS,), tl.float32)
            alpha = tl.zeros((ROWS,), tl.float32)
            for start in tl.range(0, D, PART, num_stages=STAGES):
                part = start + tl.arange(0, PART)
                rows = load_parts(seen_ptr, head, there, part, D)
                k += dot_rows(rows, tl.load(key_ptr + weight + part[None, :], eviction_policy="evict_last"), SPLIT)
                v += dot_rows(rows, tl.load(value_ptr + weight + part[None, :], eviction_policy="evict_last"), SPLIT)
                eta += tl.sum(rows * tl.load(gates_ptr + h * 2 * D + part).to(tl.float32)[None, :], 1)
                alpha += tl.sum(rows * tl.load(gates_ptr + h * 2 * D + D + part).to(tl.float32)[None, :], 1)
        square_k, square_v = tl.reduce((k * k, v * v), 1, add_two)
        k = unit_rows(k, square_k)
        v = unit_rows(v, square_v)
        eta = eta_max * tl.sigmoid(eta + bias_eta)
        alpha = alpha_min + (1.0 - alpha_min) * tl.sigmoid(alpha + bias_alpha)
        opened = eta[:, None] * (tl.exp(decay)[:, None] * k + k - v)
        row = slot[:, None] * ring_stride + (h * C + n[:, None]) * D + d[None, :]
        if CLOSE:
            opened_before = there & (n > 0)
            closed = load_parts(seen_ptr + 2 * D, head, opened_before, d, D)
            tl.store(ring_w_ptr + row - D, closed.to(ring_w_ptr.dtype.element_ty), mask=opened_before[:, None])
        tl.store(ring_k_ptr + row, k.to(ring_k_ptr.dtype.element_ty), mask=there[:, None])
        tl.store(ring_w_ptr + row, opened.to(ring_w_ptr.dtype.element_ty), mask=there[:, None])
        tl.store(gate_at, eta, mask=there)
        tl.store(gate_at + 1, decay + tl.log(tl.maximum(alpha, 1.2e-38)), mask=there)
        tl.store(n_at, n + 1, mask=there)
