"""How the product of a few rows is launched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.few_rows_linear.dot_kernel import dot_kernel
from hope_kernels.few_rows_linear.sum_kernel import sum_kernel

MAX_SUM_ROWS = 1  # rows of 16 bits: from the next one on matrix units take less time than sums
SUM_TILE_BYTES = 16384
SUM_WARPS = 4
DOT_DEEP = 64
DOT_WARPS = 4
DOT_STAGES = 6
DOT_PREFETCH_BYTES = 65536
MANY = 4096  # rows of a matrix: from here on there are programs enough with twice the rows, which read x half as often


@dataclass(frozen=True, kw_only=True)
class SumBlocks:
    """Bytes of the matrix that a program holds, whole rows of it, and its warps."""

    tile_bytes: int
    warps: int


@dataclass(frozen=True, kw_only=True)
class DotBlocks:
    """Rows of the matrix a program; columns a warp and step, warps, steps whose loads run ahead; bytes to L2 first.

    Rows are fewer than 64: products of four warps together, which begin there, are not to be trusted with 16 columns
    (see titans_chunk), and would leave a matrix of 2,048 rows to 32 multiprocessors.
    """

    rows: int
    deep: int
    warps: int
    stages: int
    prefetch_bytes: int


def sum_blocks() -> SumBlocks:
    """The table for sums: four programs of 16 KiB a multiprocessor are 2,048 rows of 2,048 in 16 bits."""
    return SumBlocks(tile_bytes=SUM_TILE_BYTES, warps=SUM_WARPS)


def dot_blocks(height: int) -> DotBlocks:
    """The table for products on matrix units. ``height``: M."""
    rows = 32 if height >= MANY else 16
    return DotBlocks(rows=rows, deep=DOT_DEEP, warps=DOT_WARPS, stages=DOT_STAGES, prefetch_bytes=DOT_PREFETCH_BYTES)


def launch_few_rows_linear(
    x: Tensor, weight: Tensor, out_dtype: torch.dtype, blocks: SumBlocks | DotBlocks | None = None
) -> Tensor:
    """``few_rows_linear`` on a kernel; arguments have been checked."""
    y = torch.empty(len(x), len(weight), dtype=out_dtype, device=x.device)
    if blocks is None:
        sums = len(x) <= MAX_SUM_ROWS or x.itemsize == 4
        blocks = sum_blocks() if sums else dot_blocks(len(weight))
    if isinstance(blocks, SumBlocks):
        _launch_sums(x, weight, y, blocks)
    else:
        _launch_dots(x, weight, y, blocks)
    return y


def _launch_sums(x: Tensor, weight: Tensor, y: Tensor, blocks: SumBlocks) -> None:
    height, width = weight.shape
    wide = int(triton.next_power_of_2(width))
    rows = max(1, min(16, blocks.tile_bytes // (wide * weight.itemsize)))
    overlap = _overlap()
    sum_kernel[(triton.cdiv(height, rows),)](
        x,
        weight,
        y,
        len(x),
        height,
        x.stride(0),
        K=width,
        ROWS=rows,
        WIDE=wide,
        ALONE=len(x) == 1,
        OVERLAP=bool(overlap),
        num_warps=blocks.warps,
        **overlap,
    )


def _launch_dots(x: Tensor, weight: Tensor, y: Tensor, blocks: DotBlocks) -> None:
    height, width = weight.shape
    overlap = _overlap()
    dot_kernel[(triton.cdiv(height, blocks.rows),)](
        x,
        weight,
        y,
        len(x),
        height,
        x.stride(0),
        K=width,
        ROWS=blocks.rows,
        DEEP=blocks.deep,
        SHARES=blocks.warps,
        STAGES=blocks.stages,
        # Bytes are asked for from an address of 16, which rows of any other width don't begin at.
        PREFETCH=blocks.prefetch_bytes // weight.itemsize if width % 8 == 0 else 0,
        OVERLAP=bool(overlap),
        num_warps=blocks.warps,
        **overlap,
    )


def _overlap() -> dict[str, bool]:
    return {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
