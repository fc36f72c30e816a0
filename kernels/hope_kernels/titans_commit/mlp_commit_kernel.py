# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Full rings of MLP memories written into their matrices."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_chunk.product_kernel import fetch, keep, operand, product, transposed
from hope_kernels.titans_commit.commit_kernel import full_rings


@triton.jit(do_not_specialize=["num_pairs", "num_slots"])
def mlp_commit_kernel(
    slots_ptr,
    inner_ptr,
    outer_ptr,
    gate_outer_ptr,
    ring_k_ptr,
    ring_v_ptr,
    gate_ptr,
    position_ptr,
    inner0_ptr,
    outer0_ptr,
    gate0_ptr,
    solved_ptr,
    narrow_ptr,
    wide_ptr,
    inner_stride,
    outer_stride,
    gate_outer_stride,
    ring_stride,
    gate_stride,
    position_stride,
    num_pairs,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    TRIES: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    EXACT: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Programs share out the memories of (sequence, head) pairs, at most TRIES each, and write those of a full ring.

    UNITS hidden units are taken at a time. solved: of ``mlp_solve_kernel``; narrow and wide: room in fp16 for
    [programs, 4, WIDTH, ROWS, D] and [programs, 3, WIDTH, ROWS, F]. Positions stay as they are, so that every memory of
    a pair finds its ring full.
    """
    WIDTH: tl.constexpr = 2 if EXACT else 1
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    tries = tl.program_id(0) + tl.num_programs(0) * tl.arange(0, TRIES)
    _, full = full_rings(slots_ptr, position_ptr, position_stride, tries // 5, num_pairs, num_slots, H, C, HAS_SLOTS)
    if tl.sum(full.to(tl.int32), 0) == 0:
        return
    narrow_ptr += tl.program_id(0) * (4 * WIDTH * ROWS * D)
    wide_ptr += tl.program_id(0) * (3 * WIDTH * ROWS * F)
    for attempt in tl.range(0, TRIES, num_stages=1, disable_licm=True):
        item = tl.program_id(0) + tl.num_programs(0) * attempt
        pair, memory = item // 5, item % 5
        slot, due = full_rings(slots_ptr, position_ptr, position_stride, pair, num_pairs, num_slots, H, C, HAS_SLOTS)
        if due:
            h = pair % H
            gate = gate_ptr + slot * gate_stride + h * C * 2
            ring_k = ring_k_ptr + slot * ring_stride + h * C * D
            ring_v = ring_v_ptr + slot * ring_stride + h * C * D
            inner = inner_ptr + slot * inner_stride + (h * 5 + memory) * F * D
            inner0 = inner0_ptr + (h * 5 + memory) * F * D
            tl.debug_barrier()
            outer = outer_ptr + slot * outer_stride + (h * 3 + tl.minimum(memory, 2)) * D * F
            outer0 = outer0_ptr + (h * 3 + tl.minimum(memory, 2)) * D * F
            is_gate = (memory == 2) | (memory == 3)
            if is_gate:
                outer = gate_outer_ptr + slot * gate_outer_stride + (h * 2 + memory - 2) * F
                outer0 = gate0_ptr + (h * 2 + memory - 2) * F
            solved = solved_ptr + pair.to(tl.int64) * (WIDTH * ROWS * ROWS)
            write_memory(
                inner, outer, inner0, outer0, is_gate, ring_k, ring_v, gate, solved, narrow_ptr, wide_ptr,
                D, F, C, ROWS, UNITS, EXACT,
            )  # fmt: skip


@triton.jit
def write_memory(
    inner,
    outer,
    inner0,
    outer0,
    is_gate,
    ring_k,
    ring_v,
    gate,
    solved_ptr,
    narrow_ptr,
    wide_ptr,
    D: tl.constexpr,
    F: tl.constexpr,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    EXACT: tl.constexpr,
):
    """inner <- g_C inner - sum_s (g_C / g_s) u_s k_s^T and outer <- g_C outer - sum_s (g_C / g_s) eta_s e_s a_s^T.

    All of a ring's rows at once, one a line of a tile, against UNITS hidden units and PART of the head's width. First
    what the rows are to the hidden units, then the errors e, which go back through W1 into u, then both writes. A
    matrix comes from memory once and from the cache after that; so does what one step leaves to the next.
    """
    PART: tl.constexpr = min(64, D)
    WIDTH: tl.constexpr = 2 if EXACT else 1
    NARROW: tl.constexpr = ROWS * D
    WIDE: tl.constexpr = ROWS * F
    hidden_ptr, slope_ptr, u_ptr = wide_ptr, wide_ptr + WIDTH * WIDE, wide_ptr + 2 * WIDTH * WIDE
    error_ptr, written_ptr = narrow_ptr, narrow_ptr + WIDTH * NARROW
    k_room, v_room = narrow_ptr + 2 * WIDTH * NARROW, narrow_ptr + 3 * WIDTH * NARROW
    s, unit, part = tl.arange(0, ROWS), tl.arange(0, UNITS), tl.arange(0, PART)
    there, square = s < C, s[:, None] * ROWS + s[None, :]
    # A gate has one output: its row of W1 stands for all, and all but the first of its errors are dropped.
    width = tl.where(is_gate, 0, F)
    if ring_k.dtype.element_ty != tl.float16:
        for first in tl.range(0, D, PART, num_stages=1, disable_licm=True):
            at = s[:, None] * D + (first + part)[None, :]
            keep(k_room, at, NARROW, tl.load(ring_k + at, mask=there[:, None], other=0.0), EXACT)
            keep(v_room, at, NARROW, tl.load(ring_v + at, mask=there[:, None], other=0.0), EXACT)
        tl.debug_barrier()
    eta = tl.load(gate + 2 * s, mask=there, other=0.0)
    before = tl.load(gate + 2 * s - 1, mask=there & (s > 0), other=0.0)
    end = tl.load(gate + 2 * C - 1)
    kept, left = tl.exp(end), tl.exp(end - tl.load(gate + 2 * s + 1, mask=there, other=0.0))

    for start in tl.range(0, F, UNITS, num_stages=1, disable_licm=True):
        f = start + unit
        line = s[:, None] * F + f[None, :]
        by_k, by_v = tl.zeros((ROWS, UNITS), tl.float32), tl.zeros((ROWS, UNITS), tl.float32)
        for first in tl.range(0, D, PART, num_stages=1, disable_licm=True):
            d = first + part
            at, rows = s[:, None] * D + d[None, :], f[:, None] * D + d[None, :]
            whole = transposed(whole_tile(inner + rows, inner0 + rows, EXACT))
            by_k = product(ring_rows(ring_k, k_room, at, NARROW, C, EXACT), whole, by_k, EXACT)
            by_v = product(ring_rows(ring_v, v_room, at, NARROW, C, EXACT), whole, by_v, EXACT)
        gated = tl.sigmoid(by_k)
        by_k *= gated
        keep(hidden_ptr, line, WIDE, by_k, EXACT)
        keep(slope_ptr, line, WIDE, gated + by_k * (1.0 - gated), EXACT)
        tl.debug_barrier()
        keep(u_ptr, line, WIDE, by_k - by_v * tl.sigmoid(by_v), EXACT)
    tl.debug_barrier()

    for first in tl.range(0, D, PART, num_stages=1, disable_licm=True):
        d = first + part
        at = s[:, None] * D + d[None, :]
        error = tl.zeros((ROWS, PART), tl.float32)
        for start in tl.range(0, F, UNITS, num_stages=1, disable_licm=True):
            f = start + unit
            columns, line = d[:, None] * width + f[None, :], s[:, None] * F + f[None, :]
            whole = whole_tile(outer + columns, outer0 + columns, EXACT)
            error = product(fetch(u_ptr, line, WIDE, EXACT), transposed(whole), error, EXACT)
        tl.debug_barrier()
        direct = there[:, None] & (width > 0)
        error += tl.load(ring_k + at, mask=direct, other=0.0).to(tl.float32)
        error -= tl.load(ring_v + at, mask=direct, other=0.0).to(tl.float32)
        error = tl.where((d == 0)[None, :] | (width > 0), error, 0.0)
        keep(error_ptr, at, NARROW, error, EXACT)
        keep(written_ptr, at, NARROW, error * (eta * left)[:, None], EXACT)
    tl.debug_barrier()

    for start in tl.range(0, F, UNITS, num_stages=1, disable_licm=True):
        f = start + unit
        line = s[:, None] * F + f[None, :]
        pulled, seen = tl.zeros((ROWS, UNITS), tl.float32), tl.zeros((ROWS, UNITS), tl.float32)
        for first in tl.range(0, D, PART, num_stages=1, disable_licm=True):
            d = first + part
            at, rows = s[:, None] * D + d[None, :], f[:, None] * D + d[None, :]
            columns = d[:, None] * width + f[None, :]
            whole = whole_tile(outer + columns, outer0 + columns, EXACT)
            pulled = product(fetch(error_ptr, at, NARROW, EXACT), whole, pulled, EXACT)
            learned = transposed(operand(tl.load(inner + rows), EXACT))
            seen = product(ring_rows(ring_k, k_room, at, NARROW, C, EXACT), learned, seen, EXACT)
        slope, rest = fetch(slope_ptr, line, WIDE, EXACT)
        pulled *= slope.to(tl.float32) + (rest.to(tl.float32) * (1.0 / 2048.0) if EXACT else 0.0)
        free = eta[:, None] * (tl.exp(before)[:, None] * seen + pulled)
        tl.debug_barrier()
        free = product(fetch(solved_ptr, square, ROWS * ROWS, EXACT), operand(free, EXACT), free, EXACT)
        keep(u_ptr, line, WIDE, left[:, None] * free, EXACT)
    tl.debug_barrier()

    for start in tl.range(0, F, UNITS, num_stages=1, disable_licm=True):
        f = start + unit
        line = s[:, None] * F + f[None, :]
        for first in tl.range(0, D, PART, num_stages=1, disable_licm=True):
            d = first + part
            at, rows = s[:, None] * D + d[None, :], f[:, None] * D + d[None, :]
            k = ring_rows(ring_k, k_room, at, NARROW, C, EXACT)
            new = product(transposed(fetch(u_ptr, line, WIDE, EXACT)), k, None, EXACT)
            new = kept * tl.load(inner + rows).to(tl.float32) - new
            tl.debug_barrier()
            tl.store(inner + rows, new.to(inner.dtype.element_ty))
            columns = d[:, None] * width + f[None, :]
            written, hidden = fetch(written_ptr, at, NARROW, EXACT), fetch(hidden_ptr, line, WIDE, EXACT)
            new = product(transposed(written), hidden, None, EXACT)
            new = kept * tl.load(outer + columns).to(tl.float32) - new
            tl.debug_barrier()
            tl.store(outer + columns, new.to(outer.dtype.element_ty), mask=(d == 0)[:, None] | (width > 0))


@triton.jit
def ring_rows(ring, room, at, size, C: tl.constexpr, EXACT: tl.constexpr):
    """Part of a ring's rows as an operand; those not in fp16 have been put into ``room``."""
    if ring.dtype.element_ty == tl.float16:
        if at.shape[0] == C:
            rows = tl.load(ring + at)
        else:
            rows = tl.load(ring + at, mask=(tl.arange(0, at.shape[0]) < C)[:, None], other=0.0)
        return rows, rows
    return fetch(room, at, size, EXACT)


@triton.jit
def whole_tile(learned, initial, EXACT: tl.constexpr):
    """A tile of what a matrix learned and what it started from, together, as an operand."""
    learned = tl.load(learned).to(tl.float32)
    # One after the other: there is no room for both.
    tl.debug_barrier()
    return operand(learned + tl.load(initial).to(tl.float32), EXACT)
