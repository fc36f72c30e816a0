# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""One row a sequence: the shared projection of all rows, then each row's product with its own delta."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.cms_delta.dot import full_dot


@triton.jit(do_not_specialize=["rows"])
def project_kernel(
    x_ptr,
    projection_ptr,
    partial_ptr,
    rows,
    x_stride,
    D_IN: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
    SPAN: tl.constexpr,
    SAME: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """partial[s] = x A^T over the s-th SPAN of d_in, fp32 [D_IN / SPAN, rows, R]; columns from RANK on are zero."""
    if OVERLAP:
        gdc_launch_dependents()
    m = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    r = tl.arange(0, R)
    acc = tl.zeros((ROWS, R), tl.float32)
    for start in tl.static_range(0, SPAN, DEPTH):
        i = tl.program_id(1) * SPAN + start + tl.arange(0, DEPTH)
        x_at = x_ptr + m[:, None].to(tl.int64) * x_stride + i[None, :]
        x = tl.load(x_at, mask=(m < rows)[:, None] & (i < D_IN)[None, :], other=0.0)
        a_at = projection_ptr + r[:, None] * D_IN + i[None, :]
        a = tl.load(a_at, mask=(r < RANK)[:, None] & (i < D_IN)[None, :], other=0.0)
        acc = full_dot(x, tl.trans(a), acc, SAME)
    at = (tl.program_id(1) * rows + m[:, None]) * R + r[None, :]
    tl.store(partial_ptr + at, acc, mask=(m < rows)[:, None])


@triton.jit(do_not_specialize=["rows", "num_slots"])
def decode_kernel(
    y_ptr,
    partial_ptr,
    delta_ptr,
    slots_ptr,
    rows,
    y_stride,
    delta_stride,
    num_slots,
    D_OUT: tl.constexpr,
    RANK: tl.constexpr,
    R: tl.constexpr,
    PARTS: tl.constexpr,
    OUT: tl.constexpr,
    HAS_SLOTS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y[row] += B (sum of the row's PARTS partial projections); one program a (row, OUT of d_out).

    With OVERLAP it starts while the projection still runs: all that comes before ``gdc_wait`` is older than that.
    A row of the null slot is left as it is; one whose slot does not exist gets NaN.
    """
    blocks: tl.constexpr = (D_OUT + OUT - 1) // OUT
    row = tl.program_id(0) // blocks
    o = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    r = tl.arange(0, R)
    y_at = y_ptr + row.to(tl.int64) * y_stride + o
    inside = o < D_OUT
    slot = row.to(tl.int64)
    if HAS_SLOTS:
        slot = tl.load(slots_ptr + row).to(tl.int64)
        if (slot <= 0) | (slot >= num_slots):
            if OVERLAP:
                gdc_wait()
            if slot != 0:
                tl.store(y_at, tl.full((OUT,), float("nan"), y_ptr.dtype.element_ty), mask=inside)
            return
    tile_at = delta_ptr + slot * delta_stride + o[:, None] * RANK + r[None, :]
    tile = tl.load(tile_at, mask=inside[:, None] & (r < RANK)[None, :], other=0.0, eviction_policy="evict_first")
    y = tl.load(y_at, mask=inside, other=0.0)
    if OVERLAP:
        gdc_wait()
    # One row at a time: a load of [PARTS, R] would impose its layout on the tile.
    projected = tl.zeros((R,), tl.float32)
    for part in tl.static_range(PARTS):
        projected += tl.load(partial_ptr + (part * rows + row) * R + r)
    learned = tl.sum(tile.to(tl.float32) * projected[None, :], 1)
    tl.store(y_at, (y.to(tl.float32) + learned).to(y_ptr.dtype.element_ty), mask=inside)
