"""Candidates for the block table of titans_decode's read."""

from __future__ import annotations

from itertools import product

import torch
from hope_kernels.titans_decode.launch import ReadBlocks, launch_decode, read_blocks
from triton.errors import TritonError

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.decode import decode_bytes, shapes
from benchmarks.kernels.table import Row
from benchmarks.kernels.titans_data import Layers, Shape, layers


def sweep_decode(bench: Bench) -> list[Row]:
    """Every candidate at every batch, best first, for the first head size; the table's own choice is among them."""
    rows = []
    for batch, shape in product(bench.sizes.batches, shapes(bench, bench.sizes.chunks[-1])):
        if shape.ring.itemsize == 2 and shape.size == bench.sizes.shapes[0][1]:
            rows += sweep_batch(bench, batch, shape)
            torch.cuda.empty_cache()
    return rows


def sweep_batch(bench: Bench, batch: int, shape: Shape) -> list[Row]:
    """The four fastest, and the table's own choice."""
    count = max(1, min(bench.sizes.layers, 8 * 256 // batch))
    given, tried = layers(count, batch, shape, shape.chunk // 2), []
    for blocks in candidates(shape, batch) if bench.measures else candidates(shape, batch)[:1]:
        try:
            tried.append((bench.replay(lambda b=blocks: decode_layers(given, b)) / count, blocks))
        except TritonError as error:
            print(f"      {blocks} does not run: {error}")
    chosen = read_blocks(batch * shape.heads, shape.size, shape.dtype.itemsize)
    tried.sort(key=lambda one: one[0])
    shown = tried[:4] + [one for one in tried[4:] if one[1] == chosen]
    return [row(bench, shape, batch, seconds, blocks, chosen) for seconds, blocks in shown]


def candidates(shape: Shape, batch: int) -> list[ReadBlocks]:
    """One warp or two, whole rows or parts of them, with few stages or many."""
    size, narrow = shape.size, shape.dtype.itemsize == 2
    found = {read_blocks(batch * shape.heads, size, shape.dtype.itemsize)}
    depths = (32, 64) if narrow else (8, 16)
    for columns, deep, warps, stages, ring in product((size, 32), depths, (1, 2), (2, 3, 4), (16, 32)):
        wide = 1 if narrow else max(1, 128 // columns) * warps
        if wide * deep > size or (columns < size and batch > 16):
            continue
        found.add(ReadBlocks(wide=wide, deep=deep, columns=columns, ring_rows=ring, stages=stages, warps=warps))
    return sorted(found, key=repr)


def decode_layers(given: Layers, blocks: ReadBlocks) -> None:
    """One token everywhere with ``blocks``."""
    given.position.fill_(given.rule.chunk_size // 2)
    for layer, state in enumerate(given.states):
        x, q, weights = given.x[layer], given.q[layer], given.weights[layer]
        launch_decode(x, q, weights, given.rule, state, given.slots, blocks)


def row(bench: Bench, shape: Shape, batch: int, seconds: float, blocks: ReadBlocks, chosen: ReadBlocks) -> Row:
    """A line of the sweep; the table's own choice has a star."""
    tile = f"{blocks.wide}x{blocks.deep}x{blocks.columns} ring {blocks.ring_rows} s{blocks.stages} w{blocks.warps}"
    share = decode_bytes(shape, batch) / seconds / bench.read
    return Row("sweep", f"B={batch} {shape}", seconds, tile + " *" * (blocks == chosen), share, "of read")
