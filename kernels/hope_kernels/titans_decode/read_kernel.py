# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""The one pass over a slot's matrix: products with x, q and the ring's open row, and everything the ring adds."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_decode.dot_kernel import in_parts, load_row, store_rows
from hope_kernels.titans_decode.ring_kernel import mix_by_dots, mix_by_sums


@triton.jit
def add_three(a0, a1, a2, b0, b1, b2):
    """Sums of three at once, so that warps meet once."""
    return a0 + b0, a1 + b1, a2 + b2


@triton.jit
def read_kernel(
    x_ptr,
    q_ptr,
    slots_ptr,
    matrix_ptr,
    ring_k_ptr,
    ring_w_ptr,
    gate_ptr,
    position_ptr,
    seen_ptr,
    x_stride,
    q_stride,
    matrix_stride,
    ring_stride,
    gate_stride,
    position_stride,
    num_slots,
    H: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    DEEP: tl.constexpr,
    WIDE: tl.constexpr,
    COLUMNS: tl.constexpr,
    RING_ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    MATRIX_DOTS: tl.constexpr,
    RING_DOTS: tl.constexpr,
    OVERLAP: tl.constexpr,
    PREFETCH: tl.constexpr,
    RING_AHEAD: tl.constexpr,
):
    """Row 0 of seen [B, H, 8, D], fp32: x + x M; row 1: M_t-1 applied to the normed q. The ring's open row is closed.

    One program a (sequence, head, COLUMNS of the output). Each reads the whole open row: with several programs a head
    none may change it, so the closed one waits in row 2. A sequence in the null slot gets zeros; one whose slot does
    not exist, or whose ring is full, gets NaN and changes nothing.

    With OVERLAP it starts while what was launched before it still runs: until ``gdc_wait`` it only asks for bytes of
    its matrix to be brought to L2, which a stale slot makes useless but not wrong.
    """
    sequence_head = tl.program_id(0)
    if OVERLAP:
        if PREFETCH:
            prefetch_matrix(matrix_ptr, slots_ptr, matrix_stride, num_slots, sequence_head, H, D, HAS_SLOTS, PREFETCH)
        gdc_wait()
        gdc_launch_dependents()
    h = sequence_head % H
    d = tl.arange(0, D)
    cols = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x_ptr += (sequence_head // H).to(tl.int64) * x_stride + h * D
    q_ptr += (sequence_head // H).to(tl.int64) * q_stride + h * D
    seen_ptr += sequence_head.to(tl.int64) * (8 * D)
    # In the order of waiting: nothing before the matrix is asked for waits for the position.
    q = tl.load(q_ptr + d).to(tl.float32)
    slot = (sequence_head // H).to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + slot).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            nothing = tl.full((COLUMNS,), 0.0, tl.float32)
            tl.store(seen_ptr + D + cols, tl.where(slot == 0, nothing, float("nan")))
            return
    n = tl.minimum(tl.load(position_ptr + slot * position_stride + h), C)
    scale = 1.0 / tl.maximum(tl.sqrt(tl.sum(q * q)), 1e-12)
    matrix_ptr += slot * matrix_stride + h * D * D
    ring_k_ptr += slot * ring_stride + h * C * D
    ring_w_ptr += slot * ring_stride + h * C * D
    gate_ptr += slot * gate_stride + h * C * 2
    open_row = tl.maximum(n - 1, 0) * D
    opened = n > 0
    if RING_AHEAD:
        prefetch(ring_k_ptr, n * D)
        prefetch(ring_w_ptr, n * D)
    if MATRIX_DOTS:
        seen_x, seen_q, seen_p = read_by_dots(
            matrix_ptr, x_ptr, q_ptr, ring_w_ptr + open_row, seen_ptr, scale, opened, cols, D, COLUMNS, DEEP, STAGES
        )
    else:
        seen_x, seen_q, seen_p = read_by_sums(
            matrix_ptr, x_ptr, q_ptr, ring_w_ptr + open_row, scale, opened, cols, D, COLUMNS, WIDE, DEEP, STAGES
        )
    if n >= C:
        tl.store(seen_ptr + D + cols, tl.full((COLUMNS,), float("nan"), tl.float32))
        return
    tl.store(seen_ptr + cols, tl.load(x_ptr + cols).to(tl.float32) + seen_x)
    if opened:
        k = tl.load(ring_k_ptr + open_row + d).to(tl.float32)
        eta = tl.load(gate_ptr + 2 * n - 2)
        decay = tl.load(gate_ptr + 2 * n - 1)
        decay_before = tl.load(gate_ptr + 2 * n - 3, mask=n > 1, other=0.0)
        p = tl.load(ring_w_ptr + open_row + cols).to(tl.float32)
        k_cols = tl.load(ring_k_ptr + open_row + cols).to(tl.float32)
        asked = scale * q
        if RING_DOTS:
            mixed_q, mixed_k = mix_by_dots(
                ring_k_ptr, ring_w_ptr, gate_ptr, seen_ptr, asked, k, decay, decay_before, n - 1, cols,
                D, COLUMNS, RING_ROWS,
            )  # fmt: skip
        else:
            mixed_q, mixed_k = mix_by_sums(
                ring_k_ptr, ring_w_ptr, gate_ptr, asked, k, decay, decay_before, n - 1, cols, D, COLUMNS, RING_ROWS
            )
        w = seen_p + p - eta * (tl.exp(decay_before) * k_cols + mixed_k)
        w = w.to(ring_w_ptr.dtype.element_ty)
        if COLUMNS == D:
            tl.store(ring_w_ptr + open_row + cols, w)
        else:
            tl.store(seen_ptr + 2 * D + cols, w.to(tl.float32))
        if CAUSAL:
            seen_q = tl.exp(decay) * seen_q - mixed_q - tl.sum(k * asked) * w.to(tl.float32)
    tl.store(seen_ptr + D + cols, scale * tl.load(q_ptr + cols).to(tl.float32) + seen_q)


@triton.jit
def prefetch_matrix(
    matrix_ptr,
    slots_ptr,
    matrix_stride,
    num_slots,
    sequence_head,
    H: tl.constexpr,
    D: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    PREFETCH: tl.constexpr,
):
    """Bring the first elements of a head's matrix to L2, PREFETCH for each of its programs."""
    slot = (sequence_head // H).to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + slot).to(tl.int64)
    if (slot >= 0) & (slot < num_slots):
        matrix_ptr += slot * matrix_stride + (sequence_head % H) * D * D
        prefetch(matrix_ptr + tl.program_id(1) * PREFETCH, PREFETCH)


@triton.jit
def prefetch(at, count):
    """Ask for ``count`` elements, a multiple of 16 bytes, to be brought to L2; none for 0."""
    tl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.u32 p, $2, 0; @p cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }",
        "=r,l,r",
        [at.to(tl.int64), count * (at.dtype.element_ty.primitive_bitwidth // 8)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def read_by_sums(
    matrix_ptr,
    x_ptr,
    q_ptr,
    p_ptr,
    scale,
    opened,
    cols,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
    DEEP: tl.constexpr,
    STAGES: tl.constexpr,
):
    """x M, scale q M and p M in fp32.

    A tile of the matrix is [WIDE, DEEP, COLUMNS], rows counted WIDE first, so that the sums over DEEP stay in a
    thread's registers.
    """
    wide = tl.arange(0, WIDE)[:, None]
    deep = tl.arange(0, DEEP)[None, :]
    sum_x = tl.zeros((WIDE, COLUMNS), tl.float32)
    sum_q = tl.zeros((WIDE, COLUMNS), tl.float32)
    sum_p = tl.zeros((WIDE, COLUMNS), tl.float32)
    for start in tl.range(0, D, DEEP * WIDE, num_stages=STAGES):
        rows = start + wide * DEEP + deep
        tile = tl.load(matrix_ptr + rows[:, :, None] * D + cols[None, None, :], eviction_policy="evict_first")
        tile = tile.to(tl.float32)
        x = tl.load(x_ptr + rows).to(tl.float32)
        q = tl.load(q_ptr + rows).to(tl.float32)
        p = tl.load(p_ptr + rows, mask=(rows >= 0) & opened, other=0.0).to(tl.float32)
        sum_x += tl.sum(tile * x[:, :, None], 1)
        sum_q += tl.sum(tile * q[:, :, None], 1)
        sum_p += tl.sum(tile * p[:, :, None], 1)
    sum_x, sum_q, sum_p = tl.reduce((sum_x, sum_q, sum_p), 0, add_three)
    return sum_x, scale * sum_q, sum_p


@triton.jit
def read_by_dots(
    matrix_ptr,
    x_ptr,
    q_ptr,
    p_ptr,
    seen_ptr,
    scale,
    opened,
    cols,
    D: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEEP: tl.constexpr,
    STAGES: tl.constexpr,
):
    """The same for a matrix of 16 bits, on matrix units: rows of a tile of 16 are x, q and p, in two parts each."""
    m = tl.arange(0, 16)[:, None]
    narrow = matrix_ptr.dtype.element_ty
    seen = tl.zeros((16, COLUMNS), tl.float32)
    for start in tl.range(0, D, DEEP, num_stages=STAGES):
        rows = start + tl.arange(0, DEEP)
        tile = tl.load(matrix_ptr + rows[:, None] * D + cols[None, :], eviction_policy="evict_first")
        x = tl.load(x_ptr + rows).to(tl.float32)
        q = scale * tl.load(q_ptr + rows).to(tl.float32)
        p = tl.load(p_ptr + rows, mask=(rows >= 0) & opened, other=0.0).to(tl.float32)
        asked = tl.where(m % 8 == 0, x[None, :], tl.where(m % 8 == 1, q[None, :], 0.0))
        asked = tl.where(m % 8 == 2, p[None, :], asked)
        seen = tl.dot(in_parts(asked, narrow), tile, seen)
    store_rows(seen_ptr, seen, cols, 3, D)
    return load_row(seen_ptr, cols, 0, D), load_row(seen_ptr, cols, 1, D), load_row(seen_ptr, cols, 2, D)
