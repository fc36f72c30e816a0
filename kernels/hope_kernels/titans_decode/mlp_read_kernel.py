# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The pass over a slot's five MLP memories: a program a memory, but for eta's and alpha's, which share one."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_decode.mlp_causal_kernel import read_causally
from hope_kernels.titans_decode.mlp_memory_kernel import read_frozen, read_gates, read_learned
from hope_kernels.titans_decode.read_kernel import prefetch


@triton.jit
def mlp_read_kernel(
    x_ptr,
    q_ptr,
    slots_ptr,
    inner_ptr,
    outer_ptr,
    gate_outer_ptr,
    ring_k_ptr,
    ring_v_ptr,
    ring_e_ptr,
    ring_u_ptr,
    ring_a_ptr,
    ring_gate_ptr,
    position_ptr,
    outer0_ptr,
    gate0_ptr,
    seen_ptr,
    hidden_ptr,
    wrote_ptr,
    raw_ptr,
    kept_ptr,
    out_ptr,
    inner_stride,
    outer_stride,
    gate_outer_stride,
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
    ROOM: tl.constexpr,
    LINE: tl.constexpr,
    NEAR: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    CAUSAL_BLOCK: tl.constexpr,
    CAUSAL_STAGES: tl.constexpr,
    RING_ROWS: tl.constexpr,
    RING_DOTS: tl.constexpr,
    CAUSAL: tl.constexpr,
    OVERLAP: tl.constexpr,
    PREFETCH: tl.constexpr,
):
    """One program a (sequence, head) and one of: memory, key, value, the gates.

    seen: [B, H, 7, F] fp32, products with the initial W2: x's with key, value, eta and alpha, then with memory q's
    and, of the ring's open row, k's and v's. hidden: [B, H, 2, F], of key and value; wrote: [B, H, 2, D], what those
    two learned of x; raw: [B, H, 2], the gates; kept: [B, H, 8, ROOM] of room. A sequence in the null slot gets zeros;
    one whose slot does not exist, or whose ring is full, gets NaN and changes nothing.

    What is read through its chunk's rows waits much and moves little: it comes first, in turn with what only moves.
    """
    heads = tl.num_programs(0) // 4
    turn = tl.program_id(0)
    late = turn >= 2 * heads
    sequence_head = tl.where(late, turn - 2 * heads, turn) // 2
    part = turn % 2 + tl.where(late, 2, 0)
    h = sequence_head % H
    d = tl.arange(0, D)
    slot = (sequence_head // H).to(tl.int64)
    out_ptr += sequence_head * D
    there = slot >= 0
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + slot).to(tl.int64)
        there = (slot > 0) & (slot < num_slots)
    null = slot == 0
    slot = tl.where(there, slot, 0)
    inner_ptr += slot * inner_stride + h * 5 * F * D
    outer_ptr += slot * outer_stride + h * 3 * D * F
    # In the matrices' order, but that memory is the last of them.
    inner_ptr += tl.where(part == 0, 4, part - 1) * (F * D)
    outer_ptr += tl.where(part == 0, 2, (part - 1) % 2) * (D * F)
    if OVERLAP:
        prefetch(inner_ptr, PREFETCH)
        gdc_launch_dependents()
        gdc_wait()
    n = tl.load(position_ptr + slot * position_stride + h, mask=there, other=C)
    x_ptr += sequence_head * D
    seen_ptr += sequence_head * 7 * F
    if n >= C:
        nothing = tl.full((D,), 0.0, tl.float32)
        tl.store(out_ptr + d, tl.where(HAS_SLOTS & null, nothing, float("nan")), mask=(d < D) & (part == 0))
    elif part == 0:
        q_ptr += sequence_head * D
        outer0_ptr += (h * 3 + 2) * D * F
        if CAUSAL:
            narrow = slot * narrow_stride + h * C * D
            wide = slot * wide_stride + h * C * F
            read_causally(q_ptr, inner_ptr, outer_ptr, outer0_ptr, ring_k_ptr + narrow, ring_v_ptr + narrow,
                          ring_e_ptr + narrow, ring_u_ptr + wide, ring_a_ptr + wide,
                          ring_gate_ptr + slot * ring_gate_stride + h * C * 2, n, seen_ptr + 4 * F,
                          kept_ptr + sequence_head.to(tl.int64) * (8 * ROOM), out_ptr, D, F, ROOM, LINE, NEAR,
                          CAUSAL_BLOCK, CAUSAL_STAGES, RING_ROWS, RING_DOTS)  # fmt: skip
        else:
            read_frozen(q_ptr, inner_ptr, outer_ptr, outer0_ptr, seen_ptr + 4 * F, out_ptr,
                        D, F, LINE, NEAR, BLOCK, STAGES)  # fmt: skip
    elif part < 3:
        which = sequence_head * 2 + part - 1
        read_learned(x_ptr, inner_ptr, outer_ptr, seen_ptr + (part - 1) * F, hidden_ptr + which * F,
                     wrote_ptr + which * D, D, F, LINE, NEAR, BLOCK, STAGES)  # fmt: skip
    else:
        gate_outer_ptr += slot * gate_outer_stride + h * 2 * F
        read_gates(x_ptr, inner_ptr, gate_outer_ptr, gate0_ptr + 2 * h * F, seen_ptr + 2 * F,
                   raw_ptr + sequence_head * 2, D, F, LINE, BLOCK, STAGES)  # fmt: skip
