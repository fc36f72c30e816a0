"""Figure 2: titans_commit, what it adds to a token of decode."""

from __future__ import annotations

import torch
from hope_kernels.titans_commit import titans_commit
from hope_kernels.titans_commit.reference import titans_commit_slots_reference

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.decode import decode_seconds, shapes
from benchmarks.kernels.errors import relative
from benchmarks.kernels.table import Row, at_most
from benchmarks.kernels.titans_data import F16, F32, Layers, in_double, layers

TOLERANCE = {F32: 1e-5, F16: 2e-3}


def check_commit(bench: Bench) -> list[Row]:
    """States against fp64: full rings among others, shuffled slots with padding, twice on one pool."""
    rows = []
    for chunk in bench.sizes.chunks:
        for shape in shapes(bench, chunk):
            given, worst = layers(1, 48, shape, chunk), 0.0
            given.slots[::9] = 0
            state, exact = given.states[0], in_double(given.states[0])
            for due in (slice(1, 40), slice(20, 49)):
                for pool in (state, exact):
                    pool.position[1:] = chunk - 1
                    pool.position[due] = chunk
                titans_commit(state, given.slots)
                titans_commit_slots_reference(exact, given.slots)
                for name, tensor in state.tensors().items():
                    worst = max(worst, relative(tensor[1:], exact.tensors()[name][1:]))
            limit = TOLERANCE[shape.dtype if shape.dtype is F16 else shape.ring]
            case = f"titans_commit {shape}, state"
            rows.append(Row("check", case, None, f"{worst:.1e}", None, "", f"< {limit}", worst < limit))
    return rows


def time_commit(bench: Bench) -> list[Row]:
    """All sequences at once, over the chunk's tokens; and in turn, a chunk's share of them at every token."""
    rows, batch = [], bench.sizes.crowd()
    for chunk in bench.sizes.chunks:
        for shape in shapes(bench, chunk):
            if shape.ring is F32:
                continue
            decode = decode_seconds(bench, shape, batch)
            given = layers(bench.sizes.layers, batch, shape, chunk)
            once, turns = (commit_seconds(bench, given, share) for share in (1, chunk))
            floor = 2 * batch * shape.heads * (shape.matrix_bytes() + shape.ring_bytes(chunk)) / bench.copy
            case, rate = f"titans_commit B={batch} {shape}", f"{once / floor:.2f} x copy floor"
            part = once / chunk / decode
            rows.append(at_most("2", f"{case}, all at once", once, rate, part, "of decode", 0.15))
            rows.append(at_most("2", f"{case}, in turn", turns, "every token", turns / decode, "of decode", 0.15))
            del given
            torch.cuda.empty_cache()
    return rows


def commit_seconds(bench: Bench, given: Layers, share: int) -> float:
    """One layer's, with one in ``share`` rings full: a replay that fills and commits, less one that only fills."""
    saved = [(state.ring_k[1::share].clone(), state.ring_w[1::share].clone()) for state in given.states]

    def fill() -> None:
        given.position.fill_(0)
        given.position[:, 1::share] = given.rule.chunk_size
        for state, (k, w) in zip(given.states, saved, strict=True):
            state.ring_k[1::share].copy_(k)
            state.ring_w[1::share].copy_(w)

    def fill_and_commit() -> None:
        fill()
        for state in given.states:
            titans_commit(state, given.slots)

    return (bench.replay(fill_and_commit) - bench.replay(fill) * bench.measures) / len(given.states)
