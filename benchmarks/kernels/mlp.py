"""Figures 4 and 2 on MLP memories, hidden as wide as the head and twice: titans_decode, and what commit adds to it."""

from __future__ import annotations

from itertools import product

import torch
from hope_kernels.mlp_state import MlpState
from hope_kernels.pool import weights_in
from hope_kernels.titans_commit.mlp_op import mlp_commit, mlp_commit_slots_reference
from hope_kernels.titans_decode import titans_decode
from hope_kernels.titans_decode.mlp_op import mlp_decode_slots_reference

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.errors import poison, relative
from benchmarks.kernels.mlp_data import MlpLayers, MlpShape, mlp_layers
from benchmarks.kernels.table import Row, at_least, at_most
from benchmarks.kernels.titans_data import BF16, F16, F32

TOLERANCE = 1.2e-2  # outputs are bf16
COMMIT_TOLERANCE = 2e-3


def shapes(bench: Bench) -> list[MlpShape]:
    """Hidden 1 x and 2 x, fp32 and fp16; short chunks with hidden 1 x alone."""
    return [
        MlpShape(heads=heads, size=size, hidden=wide * size, chunk=chunk, dtype=dtype, ring=F16)
        for chunk, (heads, size), wide, dtype in product(
            reversed(bench.sizes.chunks), bench.sizes.shapes, (1, 2), (F32, F16)
        )
        if wide == 1 or chunk == bench.sizes.chunks[-1]
    ]


def check_mlp(bench: Bench) -> list[Row]:
    """Outputs and state against fp64: shuffled slots with padding among them, two tokens on one pool."""
    rows = []
    for shape in shapes(bench):
        given, worst = mlp_layers(1, 16, shape), 0.0
        given.slots[::9] = 0
        used, state = given.slots > 0, given.states[0]
        exact, wide = in_double(state), weights_in(given.weights[0], torch.float64)
        rebuild(exact, given, used, wide)
        for name, tensor in state.tensors().items():
            tensor[1:] = exact.tensors()[name][1:].to(tensor.dtype)
        for _ in range(2):
            x, q = torch.randn(2, 16, shape.heads, shape.size).to(BF16)
            poison(x)
            out = titans_decode(x, q, given.weights[0], given.rule, (state,), given.slots)
            expected = mlp_decode_slots_reference(x.double(), q.double(), wide, given.rule, exact, given.slots)
            assert not out[~used].any(), "padding got an output"
            worst = max(worst, relative(out[used], expected[used]), state_error(state, exact))
        case = f"titans_decode MLP {shape}, outputs and state"
        rows.append(Row("check", case, None, f"{worst:.1e}", None, "", f"< {TOLERANCE}", worst < TOLERANCE))
    return rows


def in_double(state: MlpState) -> MlpState:
    """The same state in fp64."""
    return MlpState(**{n: t.clone() if n == "position" else t.double() for n, t in state.tensors().items()})


def check_commit(bench: Bench) -> list[Row]:
    """States against fp64: full rings among others, shuffled slots with padding, twice on one pool."""
    rows = []
    for shape in shapes(bench):
        given, worst = mlp_layers(1, 16, shape), 0.0
        given.slots[::9] = 0
        state, exact = given.states[0], in_double(given.states[0])
        wide = weights_in(given.weights[0], torch.float64)
        for due in (slice(1, 12), slice(8, 17)):
            for pool in (state, exact):
                pool.position[1:] = shape.chunk - 1
                pool.position[due] = shape.chunk
            mlp_commit(given.weights[0], given.rule, state, given.slots)
            mlp_commit_slots_reference(wide, exact, given.slots)
            for name, tensor in state.tensors().items():
                worst = max(worst, relative(tensor[1:], exact.tensors()[name][1:]))
        limit = COMMIT_TOLERANCE
        case = f"titans_commit MLP {shape}, state"
        rows.append(Row("check", case, None, f"{worst:.1e}", None, "", f"< {limit}", worst < limit))
    return rows


def rebuild(state: MlpState, given: MlpLayers, used: torch.Tensor, weights: object) -> None:
    """Rows drawn at random are not what the memories make of k and v; a reference token puts that right."""
    x = torch.zeros(*given.x.shape[1:], dtype=torch.float64)
    mlp_decode_slots_reference(x, x + 1, weights, given.rule, state, given.slots)
    state.position[given.slots[used].long()] -= 1


def state_error(state: MlpState, exact: MlpState) -> float:
    """The worst tensor's, of the rows that mean something."""
    rows = torch.arange(state.ring_k.shape[2])
    worst = 0.0
    for name, tensor in state.tensors().items():
        wanted = exact.tensors()[name]
        if name.startswith("ring"):
            open_rows = int(name in ("ring_u", "ring_a", "ring_e"))
            there = (rows < exact.position[1:, :, None] - open_rows)[..., None]
            worst = max(worst, relative(tensor[1:].masked_fill(~there, 0), wanted[1:].masked_fill(~there, 0)))
        else:
            worst = max(worst, relative(tensor[1:], wanted[1:]))
    return worst


def time_mlp(bench: Bench) -> list[Row]:
    """One token of every sequence in all layers, rings half full; then what a commit of all of them adds to a token."""
    rows = []
    for shape, batch in product(shapes(bench), (64, 256) if bench.measures else bench.sizes.batches[-1:]):
        if batch == 256 and (shape.hidden > shape.size or bench.sizes.shapes[0][1] != shape.size):
            continue
        given = mlp_layers(bench.sizes.layers if batch == 64 else max(1, bench.sizes.layers // 4), batch, shape)
        seconds = bench.replay(lambda g=given: decode_layers(g)) / len(given.states)
        share = shape.read_bytes(batch) / seconds / bench.read
        rate = f"{shape.read_bytes(batch) / seconds / 1e12:.2f} TB/s"
        at_goal = batch == 64 and shape.chunk == bench.sizes.chunks[-1]
        case = f"MLP B={batch} {shape}"
        rows.append(at_least("4", f"titans_decode {case}", seconds, rate, share, "of read", 0.8 if at_goal else None))
        assert all(state.ring_u[1:].isfinite().all() for state in given.states), "the ring ran away"
        commit, turns = (commit_seconds(bench, given, every) for every in (1, shape.chunk))
        rate = f"{commit * bench.copy / shape.commit_bytes(batch):.2f} x copy floor"
        part = commit / shape.chunk / seconds
        rows.append(at_most("2", f"titans_commit {case}, all at once", commit, rate, part, "of decode", 0.15))
        case = f"titans_commit {case}, in turn"
        rows.append(at_most("2", case, turns, "every token", turns / seconds, "of decode", 0.15))
        del given
        torch.cuda.empty_cache()
    return rows


def decode_layers(given: MlpLayers) -> None:
    """One token everywhere; the rings are set back to half full first, by one fill for all layers."""
    given.position.fill_(given.rule.chunk_size // 2)
    for layer, state in enumerate(given.states):
        titans_decode(given.x[layer], given.q[layer], given.weights[layer], given.rule, (state,), given.slots)


def commit_seconds(bench: Bench, given: MlpLayers, every: int) -> float:
    """One layer's, with one in ``every`` rings full: a replay that fills and commits, less one that only fills."""
    saved = [(state.ring_k[1::every].clone(), state.ring_v[1::every].clone()) for state in given.states]
    chunk = given.rule.chunk_size

    def fill() -> None:
        given.position.fill_(0)
        given.position[:, 1::every] = chunk
        for state, (k, v) in zip(given.states, saved, strict=True):
            state.ring_k[1::every].copy_(k)
            state.ring_v[1::every].copy_(v)
            state.ring_gate[1::every].fill_(0.05)
            state.ring_gate[1::every, ..., 1].fill_(-0.5)

    def fill_and_commit() -> None:
        fill()
        for layer, state in enumerate(given.states):
            mlp_commit(given.weights[layer], given.rule, state, given.slots)

    return (bench.replay(fill_and_commit) - bench.replay(fill) * bench.measures) / len(given.states)
