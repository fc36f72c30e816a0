# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Rings of MLP memories emptied, once every memory has been written."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_commit.commit_kernel import full_rings


@triton.jit(do_not_specialize=["num_pairs", "num_slots"])
def mlp_empty_kernel(
    slots_ptr,
    ring_k_ptr,
    ring_v_ptr,
    ring_e_ptr,
    ring_u_ptr,
    ring_a_ptr,
    gate_ptr,
    position_ptr,
    narrow_stride,
    wide_stride,
    gate_stride,
    position_stride,
    num_pairs,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    TRIES: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Zeros in every row and gate of a full ring, and its position back to 0; programs share out the pairs."""
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    tries = tl.program_id(0) + tl.num_programs(0) * tl.arange(0, TRIES)
    _, full = full_rings(slots_ptr, position_ptr, position_stride, tries, num_pairs, num_slots, H, C, HAS_SLOTS)
    if tl.sum(full.to(tl.int32), 0) == 0:
        return
    for attempt in tl.range(0, TRIES, num_stages=1):
        pair = tl.program_id(0) + tl.num_programs(0) * attempt
        slot, due = full_rings(slots_ptr, position_ptr, position_stride, pair, num_pairs, num_slots, H, C, HAS_SLOTS)
        if due:
            h = pair % H
            narrow, wide = slot * narrow_stride + h * C * D, slot * wide_stride + h * C * F
            fill_zeros(ring_k_ptr + narrow, C * D, BLOCK)
            fill_zeros(ring_v_ptr + narrow, C * D, BLOCK)
            fill_zeros(ring_e_ptr + narrow, C * D, BLOCK)
            fill_zeros(ring_u_ptr + wide, C * F, BLOCK)
            fill_zeros(ring_a_ptr + wide, C * F, BLOCK)
            fill_zeros(gate_ptr + slot * gate_stride + h * C * 2, C * 2, BLOCK)
            tl.debug_barrier()
            tl.store(position_ptr + slot * position_stride + h, 0)


@triton.jit
def fill_zeros(ptr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """COUNT zeros."""
    nothing = tl.zeros((BLOCK,), ptr.dtype.element_ty)
    for start in tl.range(0, COUNT, BLOCK, num_stages=1):
        at = start + tl.arange(0, BLOCK)
        tl.store(ptr + at, nothing, mask=at < COUNT)
