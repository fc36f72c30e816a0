"""Figure 7: how far states kept in few bits are from fp64 after many tokens that retain almost everything."""

from __future__ import annotations

import torch
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.pool import weights_in
from hope_kernels.titans_chunk.reference import titans_chunk_reference
from hope_kernels.titans_commit import titans_commit
from hope_kernels.titans_decode import titans_decode
from torch import Tensor

from benchmarks.kernels.bench import Bench, captured
from benchmarks.kernels.errors import relative
from benchmarks.kernels.table import Row
from benchmarks.kernels.titans_data import BF16, F16, F32, linear_weights

LIMIT = 0.01
RETENTION = 8.5  # of sigmoid, rounded to bf16: alpha = .5 + .5 sigmoid(8.5) = .9999
KEPT = ((F32, F32), (F32, F16), (F32, BF16), (F16, F16), (BF16, BF16))  # matrix, ring; the last is refused by fresh()
PERIODS = (16, 32, 64)


def study_precision(bench: Bench) -> list[Row]:
    """Every dtype and flush period, by the kernels that serve: a chunk of decode and its commit, replayed."""
    rows, (heads, size) = [], bench.sizes.shapes[0]
    tokens = bench.sizes.long if bench.measures else 64 if heads > 2 else 16
    weights = retaining(heads, size)
    x, q = (torch.randn(tokens, 1, heads, size).to(BF16) for _ in range(2))
    for chunk in PERIODS if heads > 2 else PERIODS[:1]:
        rule = TitansRule(chunk_size=chunk)
        outputs, matrix = exact(x, q, weights, rule)
        for dtype, ring in KEPT:
            state = LinearState.fresh(1, weights, chunk, dtype=F32, ring_dtype=ring)
            state = state.with_(matrix=state.matrix.to(dtype))
            given = serve(bench, x.float(), q.float(), weights, rule, state)
            kept, read = relative(state.matrix, matrix), relative(given, outputs)
            offered = dtype is not BF16
            names = {F32: "fp32", F16: "fp16", BF16: "bf16"}
            case = f"{names[dtype]} matrix, {names[ring]} ring, commit every {chunk}, {tokens} tokens"
            case += "" if offered else " (not offered)"
            worst = max(kept, read)
            target, met = (f"<= {LIMIT}", worst <= LIMIT) if offered else ("", None)
            rows.append(Row("7", case, None, f"matrix {kept:.1e}, outputs {read:.1e}", None, "", target, met))
    return rows


def retaining(heads: int, size: int) -> LinearWeights:
    """Random memories whose gates always say the same: eta half its maximum, alpha .9999."""
    random = linear_weights(heads, size)
    bias = torch.tensor([0.0, RETENTION], dtype=BF16).expand(heads, 2)
    return LinearWeights(
        key=random.key,
        value=random.value,
        memory=random.memory,
        gates=torch.zeros_like(random.gates),
        gate_bias=bias.contiguous(),
    )


def exact(x: Tensor, q: Tensor, weights: LinearWeights, rule: TitansRule) -> tuple[Tensor, Tensor]:
    """Outputs of the last chunk [C, 1, H, D], and the matrix, in fp64 throughout."""
    wide = weights_in(weights, torch.float64)
    clocks: tuple[LinearState, ...] = (LinearState.fresh(1, wide, rule.chunk_size),)
    piece = 64 * rule.chunk_size
    for start in range(0, len(x), piece):
        rows = [t[start : start + piece].double().permute(1, 2, 0, 3) for t in (x, q)]
        outputs, clocks = titans_chunk_reference(*rows, wide, rule, clocks, positions=(0,))
    return outputs[:, :, -rule.chunk_size :].permute(2, 0, 1, 3), clocks[0].matrix


def serve(bench: Bench, x: Tensor, q: Tensor, weights: LinearWeights, rule: TitansRule, state: LinearState) -> Tensor:
    """Outputs of the last chunk; the state is that after all tokens."""
    chunk = rule.chunk_size
    given, queries = torch.zeros_like(x[:chunk]), torch.zeros_like(q[:chunk])
    outputs = torch.zeros_like(given)

    def one_chunk() -> None:
        for t in range(chunk):
            outputs[t] = titans_decode(given[t], queries[t], weights, rule, (state,))
        titans_commit(state)

    step = captured(one_chunk) if bench.measures else one_chunk
    for tensor in state.tensors().values():
        tensor.zero_()
    for start in range(0, len(x), chunk):
        given.copy_(x[start : start + chunk])
        queries.copy_(q[start : start + chunk])
        step()
    return outputs
