# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The pass over a slot's five MLP memories: a program a memory, but for the one that is read causally."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_decode.mlp_memory_kernel import read_frozen, read_gates, read_learned


@triton.jit
def mlp_read_kernel(
    x_ptr,
    q_ptr,
    slots_ptr,
    inner_ptr,
    outer_ptr,
    gate_outer_ptr,
    position_ptr,
    outer0_ptr,
    gate0_ptr,
    seen_ptr,
    hidden_ptr,
    wrote_ptr,
    raw_ptr,
    out_ptr,
    inner_stride,
    outer_stride,
    gate_outer_stride,
    position_stride,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Grid (sequence x head, 3 or 4): key, value, gates, and memory where its snapshot is read (Eq 90).

    seen: [B, H, 7, F] fp32, products with the initial W2: x's with key, value, eta and alpha, then q's with memory.
    hidden: [B, H, 2, F], of key and value; wrote: [B, H, 2, D], what those two learned of x; raw: [B, H, 2], the
    gates. Sequences without a slot, or with a full ring, get nothing, and of ``out`` zeros or NaN.
    """
    sequence_head = tl.program_id(0)
    part = tl.program_id(1)
    h = sequence_head % H
    d = tl.arange(0, D)
    slot = (sequence_head // H).to(tl.int64)
    out_ptr += sequence_head * D
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + slot).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            nothing = tl.full((D,), 0.0, tl.float32)
            tl.store(out_ptr + d, tl.where(slot == 0, nothing, float("nan")), mask=(d < D) & (part == 3))
            return
    n = tl.load(position_ptr + slot * position_stride + h)
    if n >= C:
        tl.store(out_ptr + d, tl.full((D,), float("nan"), tl.float32), mask=(d < D) & (part == 3))
        return
    x_ptr += sequence_head * D
    seen_ptr += sequence_head * 7 * F
    inner_ptr += slot * inner_stride + h * 5 * F * D
    outer_ptr += slot * outer_stride + h * 3 * D * F
    if part < 2:
        read_learned(x_ptr, inner_ptr + part * F * D, outer_ptr + part * D * F, seen_ptr + part * F,
                     hidden_ptr + (sequence_head * 2 + part) * F, wrote_ptr + (sequence_head * 2 + part) * D,
                     D, F, BLOCK, STAGES)  # fmt: skip
    elif part == 2:
        gate_outer_ptr += slot * gate_outer_stride + h * 2 * F
        read_gates(x_ptr, inner_ptr + 2 * F * D, gate_outer_ptr, gate0_ptr + 2 * h * F, seen_ptr + 2 * F,
                   raw_ptr + sequence_head * 2, D, F, BLOCK, STAGES)  # fmt: skip
    else:
        read_frozen(q_ptr + sequence_head * D, inner_ptr + 4 * F * D, outer_ptr + 2 * D * F,
                    outer0_ptr + (h * 3 + 2) * D * F, seen_ptr + 4 * F, out_ptr, D, F, BLOCK, STAGES)  # fmt: skip
