"""Candidates for the block tables of few_rows_linear."""

from __future__ import annotations

import torch
from hope_kernels.few_rows_linear.launch import DotBlocks, SumBlocks, launch_few_rows_linear

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16
from benchmarks.kernels.few_rows import TINY, matrices
from benchmarks.kernels.table import Row

SHAPES = ((2048, 2048), (4096, 2048), (2064, 3072), (32000, 2048))
SUMS = ((16384, 4), (8192, 2), (8192, 4), (32768, 8), (4096, 1))  # bytes of a tile, warps
DOTS = (  # rows, columns a warp and step, warps, stages, bytes to L2
    (16, 64, 4, 6, 65536),
    (16, 64, 4, 6, 0),
    (16, 64, 8, 4, 0),
    (16, 128, 4, 4, 0),
    (32, 64, 4, 5, 0),
)


def sweep_sums(bench: Bench) -> list[Row]:
    """Candidates for ``sum_blocks`` of one row, and whether sums still do for two and four."""
    rows = []
    for tile, warps in SUMS if bench.measures else SUMS[:1]:
        blocks = SumBlocks(tile_bytes=tile, warps=warps)
        counts = (1, 2, 4) if (tile, warps) == SUMS[0] else (1,)
        rows += candidate(bench, blocks, counts, f"sums {tile} B, {warps} warps")
    return rows


def sweep_dots(bench: Bench) -> list[Row]:
    """Candidates for ``dot_blocks`` of all its counts."""
    rows = []
    for height, deep, warps, stages, ahead in DOTS if bench.measures else DOTS[:1]:
        blocks = DotBlocks(rows=height, deep=deep, warps=warps, stages=stages, prefetch_bytes=ahead)
        case = f"dots {height} x {deep}, {warps} warps, {stages} stages, {ahead} B to L2"
        rows += candidate(bench, blocks, (1, 4, 16), case)
    return rows


def candidate(bench: Bench, blocks: SumBlocks | DotBlocks, counts: tuple[int, ...], case: str) -> list[Row]:
    """One of them at every shape."""
    rows = []
    for height, width in SHAPES if bench.measures else TINY:
        weights = matrices(bench, height, width)
        for count in counts:
            x = torch.randn(count, width, dtype=BF16)

            def products(x=x, weights=weights) -> None:
                for weight in weights:
                    launch_few_rows_linear(x, weight, BF16, blocks)

            seconds = bench.replay(products) / len(weights)
            share = 2 * height * width / seconds / bench.read
            rows.append(
                Row("sweep", f"few_rows_linear N={count} {height} x {width}, {case}", seconds, "", share, "of read")
            )
    return rows
