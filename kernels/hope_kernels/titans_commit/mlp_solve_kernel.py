# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The triangular system of a full ring of MLP memories, solved once for all five."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_chunk.product_kernel import keep, operand, product, transposed
from hope_kernels.titans_chunk.solve_kernel import inverse_less_identity
from hope_kernels.titans_commit.commit_kernel import full_rings


@triton.jit(do_not_specialize=["num_pairs", "num_slots"])
def mlp_solve_kernel(
    slots_ptr,
    ring_k_ptr,
    gate_ptr,
    position_ptr,
    solved_ptr,
    room_ptr,
    ring_stride,
    gate_stride,
    position_stride,
    num_pairs,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    TRIES: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    EXACT: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """solved = (I + L)^-1 - I of every full ring: the system that the rows of all its memories solve.

    ROWS is C rounded up to what a dot takes. solved: [pairs, WIDTH, ROWS, ROWS] fp16, as ``keep`` leaves it, in two
    parts with EXACT; room: [programs, 2, ROWS, ROWS] fp32.
    """
    WIDTH: tl.constexpr = 2 if EXACT else 1
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    tries = tl.program_id(0) + tl.num_programs(0) * tl.arange(0, TRIES)
    _, full = full_rings(slots_ptr, position_ptr, position_stride, tries, num_pairs, num_slots, H, C, HAS_SLOTS)
    if tl.sum(full.to(tl.int32), 0) == 0:
        return
    room_ptr += tl.program_id(0) * 2 * ROWS * ROWS
    d, s = tl.arange(0, D), tl.arange(0, ROWS)
    there, square = s < C, s[:, None] * ROWS + s[None, :]
    for attempt in tl.range(0, TRIES, num_stages=1, disable_licm=True):
        pair = tl.program_id(0) + tl.num_programs(0) * attempt
        slot, due = full_rings(slots_ptr, position_ptr, position_stride, pair, num_pairs, num_slots, H, C, HAS_SLOTS)
        if due:
            gate = gate_ptr + slot * gate_stride + pair % H * C * 2
            ring_k = ring_k_ptr + slot * ring_stride + pair % H * C * D
            tl.debug_barrier()
            k = tl.load(ring_k + s[:, None] * D + d[None, :], mask=there[:, None], other=0.0)
            k = operand(k, EXACT)
            eta = tl.load(gate + 2 * s, mask=there, other=0.0)
            decay = tl.load(gate + 2 * s + 1, mask=there, other=0.0)
            before = tl.load(gate + 2 * s - 1, mask=there & (s > 0), other=0.0)
            shrunk = tl.exp(tl.minimum(before[:, None] - decay[None, :], 0.0))
            mix = eta[:, None] * product(k, transposed(k), None, EXACT)
            tl.store(room_ptr + square, tl.where(s[:, None] > s[None, :], mix * shrunk, 0.0))
            tl.debug_barrier()
            solved = inverse_less_identity(room_ptr, ROWS, EXACT)
            keep(solved_ptr + pair.to(tl.int64) * (WIDTH * ROWS * ROWS), square, ROWS * ROWS, solved, EXACT)
