"""Figure 3: titans_chunk on linear memories, many tokens of many sequences, forward and backward."""

from __future__ import annotations

from itertools import cycle, product

import torch
from hope_kernels.layout import LinearState
from hope_kernels.pool import take, weights_in
from hope_kernels.titans_chunk.reference import titans_chunk_reference
from torch import Tensor

from benchmarks.kernels import peers
from benchmarks.kernels.bench import Bench, Mode
from benchmarks.kernels.errors import poison, relative
from benchmarks.kernels.table import Row, at_least, at_most
from benchmarks.kernels.titans_data import BF16, F16, F32, Layers, Shape, layers

HEADLINE = (16, 128)  # heads, size: where DPLR, which takes long to tune itself, is measured
TOLERANCE = {"outputs": 1.2e-2, "state": 5e-3, "gradients": 3e-2}  # inputs, outputs and gradients are bf16


def shapes(bench: Bench) -> list[Shape]:
    """fp32 and fp16 matrices, one chunk size."""
    chunk = bench.sizes.chunks[-1]
    return [
        Shape(heads=heads, size=size, chunk=chunk, dtype=dtype, ring=F16)
        for (heads, size), dtype in product(bench.sizes.shapes, (F32, F16))
    ]


def check_chunk(bench: Bench) -> list[Row]:
    """Outputs, states and gradients against fp64: ragged, from and to places inside a chunk, twice on one pool."""
    from hope_kernels.titans_chunk import titans_chunk

    rows = []
    lengths = [100, 1, 513, 2, 64, 37] if bench.device == "cuda" else [5, 1, 9, 2, 4, 3]
    for shape in shapes(bench):
        given = layers(1, len(lengths), shape, shape.chunk // 3)
        given.slots[4] = 0
        worst = dict.fromkeys(TOLERANCE, 0.0)
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        for _ in range(2):
            x, q, grad = torch.randn(3, sum(lengths), shape.heads, shape.size).to(BF16)
            before = given.states[0].with_(**{n: t.clone() for n, t in given.states[0].tensors().items()})
            poison(x)
            leaves = [t.clone().requires_grad_() for t in (x, q)]
            out = titans_chunk(*leaves, given.weights[0], given.rule, (given.states[0],), given.slots, starts)
            gradients = torch.autograd.grad(out, leaves, grad)
            for b, slot in enumerate(given.slots.tolist()):
                span = slice(int(starts[b]), int(starts[b + 1]))
                if slot == 0:
                    assert not out[span].any(), "padding got an output"
                else:
                    expected, state, wanted = sequence(given, before, slot, x[span], q[span], grad[span])
                    worst["outputs"] = max(worst["outputs"], relative(out[span], expected))
                    for name, tensor in state.tensors().items():
                        kept = given.states[0].tensors()[name][slot]
                        if tensor.any():
                            worst["state"] = max(worst["state"], relative(kept, tensor[0]))
                    for ours, theirs in zip(gradients, wanted, strict=True):
                        if theirs.any():  # one token's output owes nothing to its own x
                            worst["gradients"] = max(worst["gradients"], relative(ours[span], theirs))
        for name, error in worst.items():
            limit = TOLERANCE[name]
            case = f"titans_chunk {shape}, {name}"
            rows.append(Row("check", case, None, f"{error:.1e}", None, "", f"< {limit}", error < limit))
    return rows


def sequence(
    given: Layers, before: LinearState, slot: int, x: Tensor, q: Tensor, grad: Tensor
) -> tuple[Tensor, LinearState, tuple[Tensor, ...]]:
    """One sequence in fp64: outputs [T, H, D], the state after, gradients of x and q."""
    state = take(before, torch.tensor([slot]), torch.float64)
    leaves = [t.double().requires_grad_() for t in (x, q)]
    wide = weights_in(given.weights[0], torch.float64)
    at = (int(state.position[0, 0]),)
    rows = [t.transpose(0, 1)[None] for t in leaves]
    out, (after,) = titans_chunk_reference(*rows, wide, given.rule, (state,), positions=at)
    out = out[0].transpose(0, 1)
    return out.detach(), after, torch.autograd.grad(out, leaves, grad.double(), allow_unused=False)


def time_chunk(bench: Bench) -> list[Row]:
    """Batches of 32k tokens against the peers, one long sequence alone, and the way back."""
    rows, total, known = [], bench.sizes.prefill, {}
    for shape in shapes(bench):
        count, tokens = 8, total // 8
        seconds = forward_seconds(bench, shape, count, tokens)
        case = f"titans_chunk {count} x {tokens} {shape}"
        rate = f"{total / seconds / 1e6:.1f} M tokens/s"
        if shape.dtype is F32:
            known = peer_seconds(bench, shape, count, tokens)
        for (name, factor), theirs in known.items():
            compared = f"{rate}, {name} {total / theirs / 1e6:.1f}"
            rows.append(at_least("3", case, seconds, compared, theirs / seconds, "x as fast", factor))
        short = forward_seconds(bench, shape, total // bench.sizes.tokens, bench.sizes.tokens)
        case = f"titans_chunk {total // bench.sizes.tokens} x {bench.sizes.tokens} {shape}"
        rows.append(Row("3", case, short, f"{total / short / 1e6:.1f} M tokens/s", seconds / short, "of 8 x 4096"))
        alone = forward_seconds(bench, shape, 1, bench.sizes.long)
        share = bench.sizes.long / alone / (total / seconds)
        rate = f"{bench.sizes.long / alone / 1e6:.1f} M tokens/s"
        rows.append(
            at_least("3", f"titans_chunk 1 x {bench.sizes.long} {shape}", alone, rate, share, "of batched", 0.6)
        )
        back = forward_seconds(bench, shape, count, tokens, backward=True) - seconds * bench.measures
        case = f"titans_chunk {count} x {tokens} {shape} backward"
        rows.append(at_most("3", case, back, "", back / seconds, "x forward", 2.5))
        torch.cuda.empty_cache()
    return rows


def peer_seconds(bench: Bench, shape: Shape, count: int, tokens: int) -> dict[tuple[str, float], float]:
    """Seconds of each peer, by its name and how many times faster than it we should be."""
    size = (count, tokens, shape.heads, shape.size)
    known = {("fla gated delta rule", 1.0): bench.repeat(peers.chunk_gated_delta_rule(bench, *size))}
    if (shape.heads, shape.size) == HEADLINE or bench.mode is Mode.REHEARSE:
        known[("fla DPLR", 3.0)] = bench.repeat(peers.chunk_dplr(bench, *size))
    torch.cuda.empty_cache()
    return known


def forward_seconds(bench: Bench, shape: Shape, count: int, tokens: int, *, backward: bool = False) -> float:
    """``count`` sequences of ``tokens`` from the start of a chunk, two input sets in turn; both ways if asked."""
    from hope_kernels.titans_chunk import titans_chunk

    given = layers(1, count, shape, 0)
    sets = cycle([torch.randn(2, count * tokens, shape.heads, shape.size).to(BF16) for _ in range(2)])

    def call() -> None:
        x, q = (t.requires_grad_(backward) for t in next(sets).unbind())
        out = titans_chunk(x, q, given.weights[0], given.rule, (given.states[0],), given.slots)
        if backward:
            torch.autograd.grad(out, (x, q), out.detach())

    seconds = bench.repeat(call)
    assert given.states[0].matrix[1:].isfinite().all(), "the state ran away"
    return seconds
