# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Several rows of 16 bits times a matrix on matrix units; every warp takes its own share of the columns."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from hope_kernels.titans_decode.read_kernel import prefetch


@triton.jit(do_not_specialize=["count"])
def dot_kernel(
    x_ptr,
    weight_ptr,
    y_ptr,
    count,
    M,
    x_stride,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    DEEP: tl.constexpr,
    SHARES: tl.constexpr,
    STAGES: tl.constexpr,
    PREFETCH: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y[n] = x[n] W^T for ``count`` rows, at most 16; one program ROWS of the matrix. y: contiguous.

    A step is SHARES tiles of DEEP columns side by side, products of their own, so that no warp repeats another's work;
    the shares are added at the end. With OVERLAP the program's first PREFETCH elements are brought to L2 while what
    makes ``x`` still runs.
    """
    first = tl.program_id(0) * ROWS
    if OVERLAP:
        if PREFETCH:
            ahead = tl.minimum(M - first, ROWS) * K
            prefetch(weight_ptr + first.to(tl.int64) * K, tl.minimum(ahead, PREFETCH) // 8 * 8)
        gdc_wait()
        gdc_launch_dependents()
    rows = first + tl.arange(0, ROWS)
    n = tl.arange(0, 16)
    across = tl.arange(0, SHARES)[:, None, None] * DEEP + tl.arange(0, DEEP)[None, None, :]
    weight_at = weight_ptr + tl.minimum(rows, M - 1).to(tl.int64)[None, :, None] * K + across
    x_at = x_ptr + n.to(tl.int64)[None, :, None] * x_stride + across
    given = (n < count)[None, :, None]
    sums = tl.zeros((SHARES, ROWS, 16), tl.float32)
    for start in tl.range(0, K, SHARES * DEEP, num_stages=STAGES):
        if K % (SHARES * DEEP) == 0:
            tile = tl.load(weight_at + start, eviction_policy="evict_first")
            x = tl.load(x_at + start, mask=given, other=0.0, eviction_policy="evict_last")
        else:
            inside = start + across < K
            tile = tl.load(weight_at + start, mask=inside, other=0.0, eviction_policy="evict_first")
            x = tl.load(x_at + start, mask=given & inside, other=0.0, eviction_policy="evict_last")
        sums = tl.dot(tile, tl.permute(x, (0, 2, 1)), sums)
    y = tl.sum(sums, 0)
    y_at = y_ptr + n.to(tl.int64)[None, :] * M + rows[:, None]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=(rows < M)[:, None] & (n < count)[None, :])
