# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Products with the initial matrices, which all sequences share: before the slots' memories are read, and after."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_decode.project_kernel import dot_rows, unit_rows


@triton.jit
def mlp_seen_kernel(
    x_ptr,
    q_ptr,
    slots_ptr,
    ring_k_ptr,
    ring_v_ptr,
    position_ptr,
    inner0_ptr,
    seen_ptr,
    narrow_stride,
    position_stride,
    num_slots,
    batch,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """seen [B, H, 7, F] as ``mlp_read_kernel`` wants it. Grid (BATCH sequences, head, which of the seven)."""
    if OVERLAP:
        gdc_launch_dependents()
    h = tl.program_id(1)
    which = tl.program_id(2)
    m = tl.program_id(0) * BATCH + tl.arange(0, BATCH)
    d = tl.arange(0, D)
    there = m < batch
    block = (m[:, None] * H + h) * D + d[None, :]
    if which < 4:
        rows = tl.load(x_ptr + block, mask=there[:, None], other=0.0).to(tl.float32)
    elif which == 4:
        rows = tl.load(q_ptr + block, mask=there[:, None], other=0.0).to(tl.float32)
        rows = unit_rows(rows, tl.sum(rows * rows, 1))
    else:
        slot = m.to(tl.int64)
        if HAS_SLOTS:
            slot = tl.load(slots_ptr + m, mask=there, other=0).to(tl.int64)
            there = there & (slot > 0) & (slot < num_slots)
        n = tl.load(position_ptr + slot * position_stride + h, mask=there, other=0)
        row = slot[:, None] * narrow_stride + (h * C + n[:, None] - 1) * D + d[None, :]
        opened = (there & (n > 0))[:, None]
        if which == 5:
            rows = tl.load(ring_k_ptr + row, mask=opened, other=0.0).to(tl.float32)
        else:
            rows = tl.load(ring_v_ptr + row, mask=opened, other=0.0).to(tl.float32)
    inner0_ptr += (h * 5 + tl.minimum(which, 4)) * F * D
    for start in tl.range(0, F, BLOCK, num_stages=1):
        f = start + tl.arange(0, BLOCK)
        weight = tl.load(inner0_ptr + f[:, None] * D + d[None, :], eviction_policy="evict_last")
        at = ((m[:, None] * H + h) * 7 + which) * F + f[None, :]
        tl.store(seen_ptr + at, dot_rows(rows, weight, SPLIT), mask=(m < batch)[:, None])


@triton.jit
def mlp_append_kernel(
    x_ptr,
    slots_ptr,
    outer0_ptr,
    bias_ptr,
    hidden_ptr,
    wrote_ptr,
    raw_ptr,
    ring_k_ptr,
    ring_v_ptr,
    ring_gate_ptr,
    position_ptr,
    narrow_stride,
    ring_gate_stride,
    position_stride,
    num_slots,
    batch,
    eta_max,
    alpha_min,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    BATCH: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLIT: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """k, v and the gates of BATCH sequences' head into their rings, as a row that stays open."""
    h = tl.program_id(1)
    m = tl.program_id(0) * BATCH + tl.arange(0, BATCH)
    d = tl.arange(0, D)
    there = m < batch
    slot = m.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + m, mask=there, other=0).to(tl.int64)
        there = there & (slot > 0) & (slot < num_slots)
    n_at = position_ptr + slot * position_stride + h
    n = tl.load(n_at, mask=there, other=0)
    there = there & (n < C)
    if OVERLAP:
        gdc_wait()
    head = m * H + h
    row = slot[:, None] * narrow_stride + (h * C + n[:, None]) * D + d[None, :]
    for i in tl.static_range(2):
        made = tl.load(x_ptr + head[:, None] * D + d[None, :], mask=there[:, None], other=0.0).to(tl.float32)
        made += tl.load(wrote_ptr + (head[:, None] * 2 + i) * D + d[None, :], mask=there[:, None], other=0.0)
        for start in tl.range(0, F, BLOCK, num_stages=1):
            f = start + tl.arange(0, BLOCK)
            at = (head[:, None] * 2 + i) * F + f[None, :]
            hidden = tl.load(hidden_ptr + at, mask=there[:, None], other=0.0)
            weight_at = ((h * 3 + i) * D + d[:, None]) * F + f[None, :]
            made += dot_rows(hidden, tl.load(outer0_ptr + weight_at, eviction_policy="evict_last"), SPLIT)
        ring = ring_k_ptr if i == 0 else ring_v_ptr
        tl.store(ring + row, unit_rows(made, tl.sum(made * made, 1)).to(ring.dtype.element_ty), mask=there[:, None])
    gate_at = ring_gate_ptr + slot * ring_gate_stride + (h * C + n) * 2
    decay = tl.load(gate_at - 1, mask=there & (n > 0), other=0.0)
    raw_eta = tl.load(raw_ptr + head * 2, mask=there, other=0.0) + tl.load(bias_ptr + 2 * h).to(tl.float32)
    raw_alpha = tl.load(raw_ptr + head * 2 + 1, mask=there, other=0.0) + tl.load(bias_ptr + 2 * h + 1).to(tl.float32)
    alpha = alpha_min + (1.0 - alpha_min) * tl.sigmoid(raw_alpha)
    tl.store(gate_at, eta_max * tl.sigmoid(raw_eta), mask=there)
    tl.store(gate_at + 1, decay + tl.log(tl.maximum(alpha, 1.2e-38)), mask=there)
    tl.store(n_at, n + 1, mask=there)
