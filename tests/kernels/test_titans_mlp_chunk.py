"""Chunk of MLP memories on slots: ragged runs against one sequence at a time, and against decode."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.layout import TitansRule
from hope_kernels.titans_chunk import titans_chunk
from hope_kernels.titans_chunk.mlp_rows import memories_of, mlp_state_of
from hope_kernels.titans_chunk.reference_memories import titans_chunk_memories_reference
from hope_kernels.titans_commit.mlp_op import mlp_commit
from hope_kernels.titans_decode import titans_decode
from support.mlp_data import mlp_pool, mlp_weights, twin
from support.titans_data import linear_weights, pool, relative

F64, F32, F16 = torch.float64, torch.float32, torch.float16
RULES = {
    "causal": TitansRule(chunk_size=5, eta_max=0.3),
    "snapshot": TitansRule(chunk_size=5, eta_max=0.3, causal=False),
}
# Slots at rows 3, 0, 4 and 3 of their chunks; the run of the null slot is 2 tokens long, two runs are alike.
PLACES = (3, 0, 4, 3)
SLOTS = torch.tensor([4, 2, 0, 1, 3], dtype=torch.int32)
STARTS = torch.tensor([0, 7, 8, 10, 17, 29], dtype=torch.int32)
PADDING = slice(8, 10)


def one_by_one(x, q, weights, rule, state):
    """(tokens, outputs) of each sequence, and the state afterwards as it must be kept."""
    outs, after = [], twin(state)
    for b, slot in enumerate(SLOTS.tolist()):
        if not slot:
            continue
        own = state.with_tensors({n: t[slot : slot + 1] for n, t in state.tensors().items()})
        tokens = slice(int(STARTS[b]), int(STARTS[b + 1]))
        rows = (z[tokens].transpose(0, 1)[None] for z in (x, q))
        out, (moved,) = titans_chunk_memories_reference(
            *rows, weights, rule, (memories_of(own),), positions=(int(own.position[0, 0]),)
        )
        outs.append((tokens, out[0].transpose(0, 1)))
        for name, tensor in mlp_state_of(moved, weights, rule).tensors().items():
            after.tensors()[name][slot] = tensor[0].detach()
    return outs, after


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_ragged_runs_are_what_each_sequence_gives_alone(rule):
    torch.manual_seed(0)
    weights = mlp_weights(2, 8, 12, F64)
    state = mlp_pool(weights, rule, PLACES, chunks=1, dtype=F64)
    x, q = torch.randn(2, int(STARTS[-1]), 2, 8, dtype=F64)
    with torch.no_grad():
        expected, after = one_by_one(x, q, weights, rule, state)
    out = titans_chunk(x, q, weights, rule, (state,), SLOTS, STARTS)
    for tokens, right in expected:
        torch.testing.assert_close(out[tokens], right, rtol=1e-10, atol=1e-12)
    assert not out[PADDING].any()
    for name, tensor in state.tensors().items():
        torch.testing.assert_close(tensor[1:], after.tensors()[name][1:], rtol=1e-10, atol=1e-12)
        assert name == "position" or tensor[0].isnan().all(), name


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_where_a_text_is_cut_into_calls_changes_neither_outputs_nor_state(rule):
    torch.manual_seed(0)
    weights = mlp_weights(2, 8, 12, F64)
    start = mlp_pool(weights, rule, (0, 0), chunks=0, dtype=F64)
    slots, length = torch.tensor([2, 1]), 17
    x, q = torch.randn(2, 2, length, 2, 8, dtype=F64)

    def rows(begin, end):
        return (z[:, begin:end].flatten(0, 1) for z in (x, q))

    whole = twin(start)
    expected = titans_chunk(*rows(0, length), weights, rule, (whole,), slots).view(2, length, 2, 8)
    for cuts in ((4, 5, 12), (1, 2, 3, 10, 16)):
        state, parts = twin(start), []
        for begin, end in zip((0, *cuts), (*cuts, length), strict=True):
            if end - begin == 1:
                one = titans_decode(x[:, begin], q[:, begin], weights, rule, (state,), slots)
                mlp_commit(weights, rule, state, slots)
                parts.append(one[:, None])
            else:
                parts.append(titans_chunk(*rows(begin, end), weights, rule, (state,), slots).view(2, -1, 2, 8))
        torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-9, atol=1e-11)
        for name, tensor in state.tensors().items():
            torch.testing.assert_close(tensor[1:], whole.tensors()[name][1:], rtol=1e-9, atol=1e-11)


def test_gradients_by_x_and_q_are_those_of_each_sequence_alone():
    torch.manual_seed(0)
    rule, weights = RULES["causal"], mlp_weights(2, 8, 12, F64)
    state = mlp_pool(weights, rule, PLACES, chunks=1, dtype=F64)
    given = [torch.randn(int(STARTS[-1]), 2, 8, dtype=F64, requires_grad=True) for _ in range(2)]
    grad = torch.randn(int(STARTS[-1]), 2, 8, dtype=F64)
    alone, _ = one_by_one(*given, weights, rule, state)
    right = torch.autograd.grad(sum((out * grad[tokens]).sum() for tokens, out in alone), given)
    found = torch.autograd.grad(titans_chunk(*given, weights, rule, (state,), SLOTS, STARTS), given, grad)
    for one, other in zip(found, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        assert not one[PADDING].any()
    assert not any(tensor.requires_grad for tensor in state.tensors().values())


def test_a_pool_of_16_bits_is_computed_in_fp32_and_rounded_once_a_call():
    torch.manual_seed(0)
    rule, weights = RULES["causal"], mlp_weights(2, 16, 16, F16)
    state = mlp_pool(weights, rule, PLACES, dtype=F16)
    exact = twin(state, F64)
    x, q = torch.randn(2, int(STARTS[-1]), 2, 16).to(F16)
    wide = type(weights)(**{name: tensor.double() for name, tensor in vars(weights).items()})
    expected = titans_chunk(x.double(), q.double(), wide, rule, (exact,), SLOTS, STARTS)
    out = titans_chunk(x, q, weights, rule, (state,), SLOTS, STARTS)
    assert out.dtype is F16
    assert relative(out, expected) < 1e-3
    for name, tensor in state.tensors().items():
        assert relative(tensor[1:], exact.tensors()[name][1:]) < 1e-3, name


def good():
    rule = TitansRule(chunk_size=4)
    weights = mlp_weights(2, 16, 16)
    x, q = torch.randn(2, 6, 2, 16)
    slots, starts = torch.tensor([1, 2]), torch.tensor([0, 1, 6], dtype=torch.int32)
    clocks = (mlp_pool(weights, rule, (0, 1), chunks=0),)
    return dict(x=x, q=q, weights=weights, rule=rule, clocks=clocks, slots=slots, starts=starts)


def full(state):
    state.position[1] = 4
    return state


def learned(weights):
    return type(weights)(**{name: tensor.clone().requires_grad_() for name, tensor in vars(weights).items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda g: {"rule": TitansRule(chunk_size=4, retain_delta=False)}, r"rule.retain_delta is False.*MLP memories"),
        (lambda g: {"rule": TitansRule(chunk_size=4, dgd_hidden=True)}, r"rule.dgd_hidden is True.*False"),
        (lambda g: {"rule": TitansRule(chunk_size=4, memory_chunk_size=8)}, r"rule.memory_chunk_size is 8"),
        (lambda g: {"clocks": ()}, r"the number of clocks is 0; it must be 1"),
        (lambda g: {"clocks": (pool(linear_weights(2, 16), g["rule"], (0, 1)),)}, r"LinearState; it must be MlpState"),
        (lambda g: {"weights": linear_weights(2, 16)}, r"clocks is \['MlpState'\]; it must be LinearState"),
        (lambda g: {"weights": mlp_weights(2, 16, 32)}, r"clocks\[0\].inner's shape"),
        (lambda g: {"weights": learned(g["weights"])}, r"weights.inner is to be learned"),
        (lambda g: {"clocks": (full(g["clocks"][0]),)}, r"clocks\[0\]'s ring in slots is \[1\].*committed"),
        (lambda g: {"slots": torch.tensor([1, 3])}, r"slots is from 1 to 3; it must be 0 \(nobody\) to 2"),
        (lambda g: {"slots": torch.tensor([1, 1])}, r"slots is \[1, 1\]; it must be different"),
        (lambda g: {"slots": torch.zeros(0, dtype=torch.int32)}, r"the number of sequences is 0"),
        (lambda g: {"starts": torch.tensor([0, 0, 6], dtype=torch.int32)}, r"shortest run is 0; it must be at least 1"),
        (lambda g: {"starts": torch.tensor([0, 1, 5], dtype=torch.int32)}, r"starts' ends is \(0, 5\)"),
        (lambda g: {"x": g["x"][:0], "q": g["q"][:0]}, r"x's shape is \(0, 2, 16\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    given = good()
    with pytest.raises(ValueError, match=message):
        titans_chunk(**(given | changes(given)))
