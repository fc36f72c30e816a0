"""Candidates for the block tables of cms_delta and cms_update."""

from __future__ import annotations

import torch
from hope_kernels.cms_delta.launch import DecodeBlocks, RaggedBlocks, SumBlocks, launch_decode, launch_ragged
from hope_kernels.cms_update.launch import Step, launch_rows

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.cms_data import BF16, delta_inputs, runs_of, shuffled, sides, update_floor, update_inputs
from benchmarks.kernels.table import Row

DECODE = (  # bytes of a tile, warps, parts of x, depth
    (16384, 4, 8, 256),
    (8192, 4, 8, 256),
    (8192, 2, 8, 256),
    (4096, 1, 8, 256),
    (32768, 4, 8, 256),
    (32768, 8, 8, 256),
    (16384, 4, 4, 256),
    (16384, 4, 8, 128),
    (8192, 2, 16, 128),
    (16384, 8, 8, 256),
)
RAGGED = ((64, 128, 4), (64, 256, 8), (128, 128, 8), (32, 256, 4), (32, 128, 4), (64, 64, 4))  # rows, columns, warps
UPDATE = (  # columns, rows, stages, warps
    (128, 64, 4, 4),
    (128, 64, 3, 4),
    (128, 32, 4, 4),
    (64, 64, 4, 4),
    (64, 128, 3, 4),
    (128, 128, 3, 4),
    (256, 64, 3, 8),
)


def sweep_decode(bench: Bench) -> list[Row]:
    """Candidates for ``decode_blocks`` at the crowd's size."""
    rows, users, layers = [], bench.sizes.users, bench.sizes.layers
    for side, (d_in, d_out) in sides(bench.sizes).items():
        pool = torch.randn(users + 1, layers, d_out, 16, dtype=BF16)
        y, x = (torch.randn(users, width, dtype=BF16) for width in (d_out, d_in))
        projection, slots = torch.randn(16, d_in, dtype=BF16), shuffled(users)
        for tile, warps, parts, depth in DECODE if bench.measures else DECODE[:1]:
            blocks = DecodeBlocks(tile_bytes=tile, warps=warps, span=max(depth, d_in // parts), depth=depth)

            def tokens(y=y, x=x, pool=pool, p=projection, b=blocks, slots=slots) -> None:
                for layer in range(layers):
                    launch_decode(y, x, pool[:, layer], p, slots, b)

            seconds = bench.replay(tokens) / layers
            share = 2 * 16 * users * d_out / seconds / bench.read
            case = f"cms_delta {side} {tile} B, {warps} warps, {parts} x {depth}"
            rows.append(Row("sweep", case, seconds, "", share, "of read"))
    return rows


def sweep_ragged(bench: Bench) -> list[Row]:
    """Candidates for ``ragged_blocks`` at many tokens of many sequences."""
    rows, count, tokens = [], bench.sizes.learners, bench.sizes.tokens
    cu, slots = runs_of([tokens] * count), shuffled(count)
    y, x, delta, projection = delta_inputs(count * tokens, count + 1, sides(bench.sizes)["inner"], 16)
    projected = x @ projection.mT
    for height, out, warps in RAGGED if bench.measures else RAGGED[-1:]:
        blocks = RaggedBlocks(rows=height, out=out, warps=warps)
        seconds = bench.repeat(lambda b=blocks: launch_ragged(y, projected, delta, slots, cu, b))
        share = 2 * (2 * y.numel() + delta.numel()) / seconds / bench.copy
        rows.append(Row("sweep", f"cms_delta {height} x {out}, {warps} warps", seconds, "", share, "of copy"))
    return rows


def sweep_update(bench: Bench) -> list[Row]:
    """Candidates for ``sum_blocks`` at many tokens of many sequences."""
    rows, count = [], bench.sizes.learners
    fired, one = torch.ones(count, dtype=torch.bool), torch.ones(1)
    step = Step(slots=shuffled(count), fired=fired, rate=1e-3 * one, decay=0.9 * one, beta=0.0, scale=None)
    pools, given = update_inputs(count, bench.sizes.tokens, bench.sizes.wide, 16)
    floor = update_floor(pools, given) / bench.read
    for out, height, stages, warps in UPDATE if bench.measures else UPDATE[-1:]:
        blocks = SumBlocks(out=out, rows=height, stages=stages, warps=warps)
        seconds = bench.repeat(lambda b=blocks, p=pools, g=given: launch_rows(p, g, step, b))
        case = f"cms_update {out} x {height}, {stages} stages, {warps} warps"
        rows.append(Row("sweep", case, seconds, "", seconds / floor, "x floor"))
    return rows
