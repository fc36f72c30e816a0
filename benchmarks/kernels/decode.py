"""Figure 1: titans_decode on linear memories, one token of every sequence in all layers."""

from __future__ import annotations

from itertools import product

import torch
from hope_kernels.pool import weights_in
from hope_kernels.titans_decode import titans_decode
from hope_kernels.titans_decode.reference import titans_decode_slots_reference

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.errors import poison, relative
from benchmarks.kernels.peers import recurrent_gated_delta_rule
from benchmarks.kernels.table import Row, at_least
from benchmarks.kernels.titans_data import BF16, F16, F32, Layers, Shape, in_double, layers

TOLERANCE = 1.2e-2  # outputs are bf16
CROWD = 48  # sequences that are checked
KEPT = ((F32, F16), (F16, F16), (F32, F32))


def shapes(bench: Bench, chunk: int) -> list[Shape]:
    """What is timed at ``chunk``: fp32 and fp16 matrices with rings of 16 bits, and all in fp32."""
    return [
        Shape(heads=heads, size=size, chunk=chunk, dtype=dtype, ring=ring)
        for (heads, size), (dtype, ring) in product(bench.sizes.shapes, KEPT)
    ]


def check_decode(bench: Bench) -> list[Row]:
    """Outputs and state against fp64: shuffled slots with padding among them, two tokens on one pool."""
    rows = []
    for chunk in bench.sizes.chunks:
        for shape in shapes(bench, chunk):
            given = layers(1, CROWD, shape, chunk // 2)
            given.slots[::9] = 0
            used, exact, worst = given.slots > 0, in_double(given.states[0]), 0.0
            wide = weights_in(given.weights[0], torch.float64)
            for _ in range(2):
                x, q = torch.randn(2, CROWD, shape.heads, shape.size).to(BF16)
                poison(x)
                out = titans_decode(x, q, given.weights[0], given.rule, (given.states[0],), given.slots)
                expected = titans_decode_slots_reference(
                    x.double(), q.double(), wide, given.rule, (exact,), given.slots
                )
                assert not out[~used].any(), "padding got an output"
                worst = max(worst, relative(out[used], expected[used]))
                for name, tensor in given.states[0].tensors().items():
                    worst = max(worst, relative(tensor[1:], exact.tensors()[name][1:]))
            case = f"titans_decode {shape}, outputs and state"
            rows.append(Row("check", case, None, f"{worst:.1e}", None, "", f"< {TOLERANCE}", worst < TOLERANCE))
    return rows


def time_decode(bench: Bench) -> list[Row]:
    """Every batch, against bytes and against the peer, rings half full."""
    rows, peers = [], Peers(bench)
    for batch, chunk in product(bench.sizes.batches, bench.sizes.chunks):
        for shape in shapes(bench, chunk):
            if shape.ring is F32 and batch != bench.sizes.crowd():
                continue
            seconds = decode_seconds(bench, shape, batch)
            rows += judge(bench, shape, batch, seconds, peers.seconds(batch, shape))
            torch.cuda.empty_cache()
    return rows


def judge(bench: Bench, shape: Shape, batch: int, seconds: float, peer: float) -> list[Row]:
    """The row against read bandwidth, and the one against the peer, with the targets that were set for this batch."""
    least = decode_bytes(shape, batch)
    case = f"titans_decode B={batch} {shape}"
    alone = batch * shape.heads * shape.matrix_bytes() / bench.read / seconds
    rate = f"{least / seconds / 1e12:.2f} TB/s, matrix alone {alone:.2f}"
    narrow, most = shape.dtype is F16, shape.ring is F16
    share = {64: 0.65, 256: 0.8 if narrow else 0.85, 1024: 0.8 if narrow else 0.85}.get(batch) if most else None
    faster = {1: 1.0, 16: 1.0, 256: 4.0 if narrow else 2.5}.get(batch) if most else None
    return [
        at_least("1", case, seconds, rate, least / seconds / bench.read, "of read", share),
        at_least("1", f"{case}: fla", peer, "", peer / seconds, "x as long", faster),
    ]


def decode_bytes(shape: Shape, batch: int) -> int:
    """What must move for one layer: matrices, half a ring, a row into it, the weights once, x, q and the output."""
    head = shape.matrix_bytes() + shape.ring_bytes(shape.chunk // 2) + 2 * shape.ring_bytes(1) + 6 * shape.size
    return batch * shape.heads * head + shape.heads * (3 * shape.size + 2) * shape.size * 2


def decode_seconds(bench: Bench, shape: Shape, batch: int) -> float:
    """One layer's share of a replay over all of them."""
    at = shape.chunk // 2
    given = layers(bench.sizes.layers, batch, shape, at)
    seconds = bench.replay(lambda: decode_layers(given, at)) / bench.sizes.layers
    assert all(state.ring_w[1:].isfinite().all() for state in given.states), "the ring ran away"
    return seconds


def decode_layers(given: Layers, at: int) -> None:
    """One token everywhere; the rings are set back to ``at`` rows first, by one fill for all layers."""
    given.position.fill_(at)
    for layer, state in enumerate(given.states):
        titans_decode(given.x[layer], given.q[layer], given.weights[layer], given.rule, (state,), given.slots)


class Peers:
    """The recurrent gated delta rule, timed once for every batch and state."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._known = bench, {}

    def seconds(self, batch: int, shape: Shape) -> float:
        """One layer's, of a replay over all."""
        key = (batch, shape.heads, shape.size, shape.dtype)
        if key not in self._known:
            tokens = recurrent_gated_delta_rule(self._bench, *key)
            self._known[key] = self._bench.replay(tokens) / self._bench.sizes.layers
            del tokens
            torch.cuda.empty_cache()
        return self._known[key]
