"""Candidates for the block tables of cms_delta and cms_update."""

from __future__ import annotations

import torch
from hope_kernels.cms_delta.launch import DecodeBlocks, RaggedBlocks, SumBlocks, launch_decode, launch_ragged
from hope_kernels.cms_update.launch import Step, launch_rows
from torch import Tensor
from triton.testing import do_bench

from benchmarks.kernel_cms_data import (
    BF16,
    LAYERS,
    SIDES,
    WIDE,
    Ceilings,
    Row,
    delta_inputs,
    graph_seconds,
    runs_of,
    update_floor,
    update_inputs,
)


def sweep_decode(bandwidth: Ceilings) -> list[Row]:
    """Candidates for ``decode_blocks`` at B = 256."""
    rows = []
    for side, (d_in, d_out) in SIDES.items():
        pool = torch.randn(257, LAYERS, d_out, 16, device="cuda", dtype=BF16)
        y, x = (torch.randn(256, width, device="cuda", dtype=BF16) for width in (d_out, d_in))
        projection = torch.randn(16, d_in, device="cuda", dtype=BF16)
        slots = torch.randperm(256, device="cuda").int() + 1
        for tile, warps, parts, depth in (
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
        ):
            blocks = DecodeBlocks(tile_bytes=tile, warps=warps, span=d_in // parts, depth=depth)

            def layers(y: Tensor = y, x: Tensor = x, pool: Tensor = pool, p: Tensor = projection, b=blocks) -> None:
                for layer in range(LAYERS):
                    launch_decode(y, x, pool[:, layer], p, slots, b)  # noqa: B023

            seconds = graph_seconds(layers) / LAYERS
            share = 2 * 16 * 256 * d_out / seconds / bandwidth.read
            rows.append(
                Row(
                    f"sweep decode {side} {tile} B, {warps} warps, {parts} x {depth}",
                    f"{seconds * 1e6:.2f} us, {share:.0%}",
                )
            )
    return rows


def sweep_ragged(bandwidth: Ceilings) -> list[Row]:
    """Candidates for ``ragged_blocks`` at 64 sequences of 512 tokens."""
    rows, cu = [], runs_of([512] * 64)
    y, x, delta, projection = delta_inputs(64 * 512, 65, "inner", 16)
    slots = torch.randperm(64, device="cuda").int() + 1
    projected = x @ projection.mT
    for height, out, warps in ((64, 128, 4), (64, 256, 8), (128, 128, 8), (32, 256, 4), (32, 128, 4), (64, 64, 4)):
        blocks = RaggedBlocks(rows=height, out=out, warps=warps)
        milliseconds = do_bench(
            lambda b=blocks: launch_ragged(y, projected, delta, slots, cu, b), rep=40, return_mode="median"
        )
        share = 2 * (2 * y.numel() + delta.numel()) / milliseconds / 1e-3 / bandwidth.copy
        rows.append(
            Row(f"sweep ragged {height} x {out}, {warps} warps, of copy", f"{milliseconds * 1e3:.0f} us, {share:.0%}")
        )
    return rows


def sweep_update(bandwidth: Ceilings) -> list[Row]:
    """Candidates for ``sum_blocks`` at 64 sequences of 512 tokens."""
    rows = []
    slots = torch.randperm(64, device="cuda").int() + 1
    fired, one = torch.ones(64, dtype=torch.bool, device="cuda"), torch.ones(1, device="cuda")
    step = Step(slots=slots, fired=fired, rate=1e-3 * one, decay=0.9 * one, beta=0.0, scale=None)
    pools, given = update_inputs(64, 512, WIDE, 16)
    floor = update_floor(pools, given) / bandwidth.read * 1e3
    for out, height, stages, warps in (
        (128, 64, 4, 4),
        (128, 64, 3, 4),
        (128, 32, 4, 4),
        (64, 64, 4, 4),
        (64, 128, 3, 4),
        (128, 128, 3, 4),
        (256, 64, 3, 8),
    ):
        blocks = SumBlocks(out=out, rows=height, stages=stages, warps=warps)
        milliseconds = do_bench(
            lambda b=blocks, p=pools, g=given: launch_rows(p, g, step, b), rep=40, return_mode="median"
        )
        text = f"{milliseconds * 1e3:.0f} us, {milliseconds / floor:.2f} x floor"
        rows.append(Row(f"sweep update {out} x {height}, {stages} stages, {warps} warps", text))
    return rows
