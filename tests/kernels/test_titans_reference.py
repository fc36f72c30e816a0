"""The fast reference forms against the token-by-token oracle, fp64."""

from __future__ import annotations

import itertools

import pytest
import torch
from hope_kernels.layout import LinearState, LinearWeights, MlpWeights, TitansRule
from hope_kernels.titans_chunk.reference import titans_chunk_reference
from hope_kernels.titans_chunk.reference_memories import fresh_memories, titans_chunk_memories_reference
from hope_kernels.titans_commit.reference import titans_commit_reference
from hope_kernels.titans_decode.reference import titans_decode_reference
from support.titans_oracle import HeadOracle

B, H, D, F, T = 2, 2, 6, 5, 25
EXACT = 1e-11  # fp64, sums of about 40 terms
SPLITS = ((1,) * T, (1, 5, 3, 9, 1, 6), (8, 17))
PAIRS = ((0, 0), (1, 1))  # the (sequence, head) that an oracle follows


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def linear_weights():
    square = lambda: torch.eye(D) + torch.randn(H, D, D) / D**0.5
    return LinearWeights(
        key=square(), value=square(), memory=square(), gates=torch.randn(H, 2, D), gate_bias=torch.randn(H, 2)
    )


def mlp_weights():
    return MlpWeights(
        inner=torch.randn(H, 5, F, D) / D**0.5,
        outer=torch.randn(H, 3, D, F) / F**0.5,
        gate_outer=torch.randn(H, 2, F),
        gate_bias=torch.randn(H, 2),
    )


def oracles(weights, rule):
    def base(head):
        if isinstance(weights, LinearWeights):
            square = {n: [getattr(weights, n)[head] - torch.eye(D)] for n in ("key", "value", "memory")}
            return square | {"eta": [weights.gates[head, :1]], "alpha": [weights.gates[head, 1:]]}
        outer = {n: weights.outer[head, i] for i, n in enumerate(("key", "value", "memory"))}
        outer |= {n: weights.gate_outer[head, i : i + 1] for i, n in enumerate(("eta", "alpha"))}
        names = ("key", "value", "eta", "alpha", "memory")
        return {n: [outer[n], weights.inner[head, i]] for i, n in enumerate(names)}

    return [
        HeadOracle(
            base=base(head),
            bias_eta=weights.gate_bias[head, 0],
            bias_alpha=weights.gate_bias[head, 1],
            eta_max=rule.eta_max,
            alpha_min=rule.alpha_min,
            chunk=rule.chunk_size,
            memory_chunk=rule.chunk_sizes[-1],
            causal=rule.causal,
            retain_delta=rule.retain_delta,
            dgd_hidden=rule.dgd_hidden,
        )
        for head in range(H)
    ]


def run_oracle(weights, rule, x, q):
    """Outputs [T, D] and final memories of the PAIRS."""
    outs, final = [], []
    for b, head in PAIRS:
        oracle = oracles(weights, rule)[head]
        outs.append(torch.stack([oracle.step(x[b, head, t], q[b, head, t]) for t in range(x.shape[2])]))
        final.append(oracle)
    return outs, final


def fresh(weights, rule):
    if isinstance(weights, LinearWeights) and rule.retain_delta:
        return tuple(LinearState.fresh(B, weights, c) for c in rule.chunk_sizes)
    return fresh_memories(B, weights, rule)


def run_split(weights, rule, x, q, split):
    one_matrix = isinstance(weights, LinearWeights) and rule.retain_delta
    op = titans_chunk_reference if one_matrix else titans_chunk_memories_reference
    clocks, out, at = fresh(weights, rule), [], 0
    for n in split:
        positions = tuple(int(c.position.flatten()[0]) for c in clocks)
        o, clocks = op(x[:, :, at : at + n], q[:, :, at : at + n], weights, rule, clocks, positions=positions)
        out.append(o)
        at += n
    return torch.cat(out, 2), clocks


RULES = [
    pytest.param(
        kind,
        dict(chunk_size=c, memory_chunk_size=m, causal=causal, retain_delta=delta, dgd_hidden=dgd),
        id=f"{kind}-{'causal' if causal else 'snapshot'}-{'delta' if delta else 'full'}-{c}-{m}{'-dgd' if dgd else ''}",
    )
    for kind, causal, delta, (c, m), dgd in itertools.product(
        ("linear", "mlp"), (True, False), (True, False), ((8, 0), (4, 8), (6, 4)), (False, True)
    )
    if kind == "mlp" or not dgd
]


@pytest.mark.parametrize(("kind", "options"), RULES)
def test_any_split_into_calls_gives_the_token_by_token_recurrence_and_one_state(kind, options):
    rule = TitansRule(eta_max=0.3, alpha_min=0.2, **options)
    weights = linear_weights() if kind == "linear" else mlp_weights()
    x, q = torch.randn(B, H, T, D), torch.randn(B, H, T, D)
    expected, _ = run_oracle(weights, rule, x, q)
    _, whole = run_split(weights, rule, x, q, (T,))
    for split in SPLITS:
        out, parts = run_split(weights, rule, x, q, split)
        for (b, head), rows in zip(PAIRS, expected, strict=True):
            assert (out[b, head] - rows).abs().max() < EXACT, split
        for a, b in zip(whole, parts, strict=True):
            for name, tensor in a.tensors().items():
                assert (tensor - b.tensors()[name]).abs().max() < EXACT, (split, name)


@pytest.mark.parametrize("retain_delta", [True, False])
def test_every_learned_matrix_equals_the_oracles(retain_delta):
    rule = TitansRule(chunk_size=8, eta_max=0.3, alpha_min=0.2, retain_delta=retain_delta)
    weights = linear_weights()
    x, q = torch.randn(B, H, 32, D), torch.randn(B, H, 32, D)
    _, final = run_oracle(weights, rule, x, q)
    _, (clock,) = run_split(weights, rule, x, q, (5, 27))
    for (b, h), oracle in zip(PAIRS, final, strict=True):
        for name in ("key", "value", "memory", "eta", "alpha"):
            gates = {"eta": 0, "alpha": 1}
            if retain_delta:
                start = weights.gates[h, gates[name]][None] if name in gates else getattr(weights, name)[h]
                ours, theirs = start @ clock.matrix[b, h].mT, oracle.now[name][0] - oracle.base[name][0]
            else:
                ours, theirs = clock.matrices[name][0][b, h], oracle.now[name][0]
            assert (ours - theirs).abs().max() < EXACT, name


@pytest.mark.parametrize("sizes", [(8, 0), (4, 8), (6, 4)])
@pytest.mark.parametrize("causal", [True, False])
def test_decode_equals_the_chunk_form_for_sequences_at_different_places(sizes, causal):
    rule = TitansRule(chunk_size=sizes[0], memory_chunk_size=sizes[1], eta_max=0.3, alpha_min=0.2, causal=causal)
    weights = linear_weights()
    x, q = torch.randn(B, H, T, D), torch.randn(B, H, T, D)
    expected, _ = run_split(weights, rule, x, q, (T,))
    starts = (3, 9)
    clocks = []
    for b in range(B):
        _, state = run_split(weights, rule, x, q, (starts[b],))
        clocks.append([c.with_(**{n: t[b : b + 1] for n, t in c.tensors().items()}) for c in state])
    state = tuple(
        pair[0].with_(**{n: torch.cat([c.tensors()[n] for c in pair]) for n in pair[0].tensors()})
        for pair in zip(*clocks, strict=True)
    )
    for step in range(T - max(starts)):
        rows = [(b, starts[b] + step) for b in range(B)]
        xs = torch.stack([x[b, :, t] for b, t in rows])
        qs = torch.stack([q[b, :, t] for b, t in rows])
        out = titans_decode_reference(xs, qs, weights, rule, state)
        for i, (b, t) in enumerate(rows):
            assert (out[i] - expected[b, :, t]).abs().max() < EXACT
        state = tuple(commit_full(c) for c in state)


def commit_full(clock):
    full = clock.position[:, 0] == clock.ring_k.shape[2]
    if not full.any():
        return clock
    moved = titans_commit_reference(clock.with_(**{n: t[full] for n, t in clock.tensors().items()}))
    merged = {n: t.clone() for n, t in clock.tensors().items()}
    for n, t in moved.tensors().items():
        merged[n][full] = t
    return clock.with_(**merged)


@pytest.mark.parametrize(("kind", "options"), RULES)
def test_no_output_sees_a_later_token(kind, options):
    rule = TitansRule(eta_max=0.3, alpha_min=0.2, **options)
    weights = linear_weights() if kind == "linear" else mlp_weights()
    x, q = torch.randn(B, H, T, D), torch.randn(B, H, T, D)
    out, _ = run_split(weights, rule, x, q, (T,))
    x[:, :, 12] += 1
    moved, _ = run_split(weights, rule, x, q, (T,))
    assert torch.equal(out[:, :, :12], moved[:, :, :12])
    assert not torch.equal(out[:, :, 13:], moved[:, :, 13:]) or not rule.causal


@pytest.mark.parametrize(("kind", "options"), RULES)
def test_every_initial_memory_gets_an_outer_gradient(kind, options):
    rule = TitansRule(eta_max=0.3, alpha_min=0.2, **options)
    weights = linear_weights() if kind == "linear" else mlp_weights()
    leaves = {n: t.requires_grad_() for n, t in vars(weights).items()}
    x, q = torch.randn(B, H, T, D), torch.randn(B, H, T, D)
    out, _ = run_split(weights, rule, x, q, (T,))
    (out**3).sum().backward()
    for name, leaf in leaves.items():
        per_memory = leaf.grad.flatten(2).abs().sum(-1) if leaf.dim() > 2 else leaf.grad.abs()
        assert (per_memory > 0).all(), name


def test_64k_tokens_of_hard_input_stay_finite():
    torch.set_default_dtype(torch.float32)
    rule = TitansRule(chunk_size=64, eta_max=0.1, alpha_min=0.5)
    weights = linear_weights()
    clocks = fresh(weights, rule)
    x = torch.randn(B, H, 1, D).expand(-1, -1, 1024, -1) + 0.1 * torch.randn(B, H, 1024, D)  # nearly one key
    for _ in range(64):
        out, clocks = titans_chunk_reference(x, x, weights, rule, clocks, positions=(0,))
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(t).all() for t in clocks[0].tensors().values())


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("lengths", [(5, 2), (1, 5), (4, 5)])
def test_padding_changes_nothing(start, lengths):
    rule = TitansRule(chunk_size=8, eta_max=0.3, alpha_min=0.2)
    weights = linear_weights()
    x, q = torch.randn(B, H, T, D), torch.randn(B, H, T, D)
    before = run_split(weights, rule, x, q, (start,))[1] if start else fresh(weights, rule)
    xs, qs = x[:, :, start : start + 5], q[:, :, start : start + 5]
    out, after = titans_chunk_reference(
        xs, qs, weights, rule, before, positions=(start,), lengths=torch.tensor(lengths)
    )
    for b, n in enumerate(lengths):
        whole, expected = run_split(weights, rule, x, q, (start + n,))
        assert (out[b, :, :n] - whole[b, :, start:]).abs().max() < EXACT
        for name, tensor in after[0].tensors().items():
            assert (tensor[b] - expected[0].tensors()[name][b]).abs().max() < EXACT, name
