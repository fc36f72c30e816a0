"""Candidates for the block table of titans_decode on MLP memories."""

from __future__ import annotations

from dataclasses import replace

import torch
from hope_kernels.titans_decode.mlp_launch import MlpBlocks, launch_mlp_decode, mlp_blocks
from triton.errors import TritonError

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.mlp import shapes
from benchmarks.kernels.mlp_data import MlpLayers, MlpShape, mlp_layers
from benchmarks.kernels.table import Row

READ = ((16, 2, 2), (16, 3, 2), (32, 1, 2), (32, 2, 2), (32, 3, 2), (32, 2, 4), (64, 2, 4))  # units, stages, warps
CAUSAL = ((16, 1), (16, 2), (16, 3), (32, 1), (32, 2))  # units, stages


def sweep_mlp(bench: Bench) -> list[Row]:
    """What all memories share, then what the one has that is read causally; hidden as wide as the head."""
    rows, batch = [], 64 if bench.measures else 3
    for shape in shapes(bench):
        if shape.hidden > shape.size or shape.size != bench.sizes.shapes[0][1]:
            continue
        given = mlp_layers(max(1, bench.sizes.layers // 4), batch, shape)
        table = mlp_blocks(shape.size, shape.hidden, shape.dtype.itemsize)
        read = [replace(table, units=units, stages=stages, warps=warps) for units, stages, warps in READ]
        causal = [replace(table, causal_units=units, causal_stages=stages) for units, stages in CAUSAL]
        for blocks in dict.fromkeys((table, *read, *causal) if bench.measures else (table,)):
            rows += try_blocks(bench, given, shape, batch, blocks)
        torch.cuda.empty_cache()
    return rows


def try_blocks(bench: Bench, given: MlpLayers, shape: MlpShape, batch: int, blocks: MlpBlocks) -> list[Row]:
    """One row, or none where the blocks ask for more shared memory than there is."""

    def tokens() -> None:
        given.position.fill_(given.rule.chunk_size // 2)
        for layer, state in enumerate(given.states):
            x, q, weights = given.x[layer], given.q[layer], given.weights[layer]
            launch_mlp_decode(x, q, weights, given.rule, state, given.slots, blocks)

    try:
        seconds = bench.replay(tokens) / len(given.states)
    except TritonError as error:
        print(f"      {blocks} does not run: {error}")
        return []
    read = f"{blocks.units} units s{blocks.stages} w{blocks.warps}"
    text = f"{read}, causal {blocks.causal_units} s{blocks.causal_stages}"
    share = shape.read_bytes(batch) / seconds / bench.read
    return [Row("sweep", f"MLP B={batch} {shape}", seconds, text, share, "of read")]
