"""Chunk's kernels against the reference in fp64: ragged runs of a pool's slots, outputs, state and gradients."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.layout import TitansRule
from hope_kernels.titans_chunk import titans_chunk
from hope_kernels.titans_chunk.gradient import differentiable_chunk
from hope_kernels.titans_chunk.slots_reference import titans_chunk_slots_reference
from support.titans_data import in_double, linear_weights, pool, relative, twin

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# Relative error of outputs and of every state tensor against fp64 on the same rounded inputs, by the coarsest dtype:
# products are of fp16 numbers, whatever the tensors are.
TOLERANCE = {F32: 2e-3, F16: 3e-3, BF16: 1.2e-2}

CASES = [  # H, D, C, x, weights, matrix, ring, causal, lengths
    pytest.param(1, 32, 16, F32, F32, F32, F32, True, (37, 1, 11, 33), id="fp32"),
    pytest.param(2, 16, 5, F32, F32, F32, F32, False, (3, 1, 12, 4), id="odd-snapshot"),
    pytest.param(1, 64, 33, F16, F16, F16, F16, True, (70, 1, 2, 31), id="fp16"),
    pytest.param(1, 64, 5, F16, F16, F32, F16, True, (12, 1, 2, 9), id="few-rows-of-a-tile"),
    *(
        pytest.param(*case[1:], (2000, 1, 63, 100), id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("128-fp32", 16, 128, 64, BF16, BF16, F32, F32, True),
            ("128-16", 16, 128, 16, BF16, BF16, F32, F16, True),
            ("128-fp16", 3, 128, 64, F16, BF16, F16, F16, True),
            ("128-50", 3, 128, 50, F32, F32, F32, BF16, False),
            ("128-16-snapshot", 3, 128, 16, BF16, BF16, F32, F16, False),
            ("128-32", 3, 128, 32, BF16, BF16, F32, F16, True),
            ("64-16", 3, 64, 16, BF16, BF16, F32, F16, True),
            ("64-32-snapshot", 3, 64, 32, F32, F32, F32, F32, False),
            ("64-64", 32, 64, 64, BF16, F32, F32, F16, True),
        )
    ),
]


def launch(*arguments):
    from hope_kernels.titans_chunk.launch import launch_chunk

    return launch_chunk(*arguments)[0]


def runs(lengths):
    """A pool of slots 1..4 in another order, with padding between; the run of the padding is 5 tokens long."""
    slots = torch.tensor([4, 2, 0, 1, 3], dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor([0, *lengths[:2], 5, *lengths[2:]])
    return slots, lengths.cumsum(0).to(DEVICE, torch.int32)


def rows_of(slots, starts, slot):
    b = slots.tolist().index(slot)
    return slice(int(starts[b]), int(starts[b + 1]))


@pytest.mark.parametrize(("heads", "size", "chunk", "x_dtype", "w_dtype", "dtype", "ring", "causal", "lengths"), CASES)
def test_runs_equal_the_reference_and_leave_its_state(
    heads, size, chunk, x_dtype, w_dtype, dtype, ring, causal, lengths
):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=chunk, eta_max=0.1, causal=causal)
    weights = linear_weights(heads, size, w_dtype, DEVICE)
    state = pool(weights, rule, (0, 1, chunk - 1, chunk // 2), dtype=dtype, ring_dtype=ring)
    slots, starts = runs(lengths)
    tolerance = max(TOLERANCE[d] for d in (x_dtype, dtype, ring))
    for _ in range(2 if x_dtype is F32 else 1):
        x, q = (torch.randn(int(starts[-1]), heads, size, device=DEVICE).to(x_dtype) for _ in range(2))
        exact = in_double(state)
        expected = titans_chunk_slots_reference(x.double(), q.double(), weights, rule, (exact,), slots, starts)
        out = launch(x, q, weights, rule, state, slots, starts)
        assert relative(out, expected) < tolerance
        assert not out[rows_of(slots, starts, 0)].any()
        for name, tensor in state.tensors().items():
            assert relative(tensor[1:], exact.tensors()[name][1:]) < tolerance, name
            assert name == "position" or tensor[0].isnan().all(), name


def test_without_slots_and_starts_runs_are_equal_and_sequence_b_has_slot_b():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.1)
    weights = linear_weights(1, 16, device=DEVICE)
    state = pool(weights, rule, (3, 0))
    view = state.with_(**{name: tensor[1:] for name, tensor in state.tensors().items()})
    same = twin(state)
    x, q = torch.randn(2, 2 * 7, 1, 16, device=DEVICE)
    slots, starts = torch.tensor([1, 2], device=DEVICE), torch.tensor([0, 7, 14], dtype=torch.int32, device=DEVICE)
    assert torch.equal(launch(x, q, weights, rule, view, None, None), launch(x, q, weights, rule, same, slots, starts))
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[1:], same.tensors()[name][1:]), name


def test_rows_may_be_halves_of_a_wider_product():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.1)
    weights = linear_weights(2, 16, dtype=F16, device=DEVICE)
    state = pool(weights, rule, (3, 0), dtype=F16, ring_dtype=F16)
    same = twin(state)
    x, q = torch.randn(2 * 11, 2 * 32, device=DEVICE).half().view(-1, 4, 16).split(2, 1)
    slots, starts = torch.tensor([2, 1], device=DEVICE), torch.tensor([0, 15, 22], dtype=torch.int32, device=DEVICE)
    assert not x.is_contiguous()
    apart = launch(x, q, weights, rule, state, slots, starts)
    assert torch.equal(apart, launch(x.contiguous(), q.contiguous(), weights, rule, same, slots, starts))
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[1:], same.tensors()[name][1:]), name


def test_a_full_ring_or_a_slot_that_does_not_exist_gives_nan_and_changes_nothing():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.1)
    weights = linear_weights(1, 16, device=DEVICE)
    state = pool(weights, rule, (3, 1))
    state.position[1] = 4
    before = twin(state)
    x, q = torch.randn(2, 4 * 3, 1, 16, device=DEVICE)
    x, q = x.requires_grad_(), q.requires_grad_()
    out = differentiable_chunk(x, q, weights, rule, state, torch.tensor([1, 3, 0, 2], device=DEVICE), None)
    assert out[:6].isnan().all()
    assert not out[6:9].any()
    assert out[9:].isfinite().all()
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[1], before.tensors()[name][1]), name
    for grad in torch.autograd.grad(out[6:].sum(), (x, q)):
        assert grad[:6].isnan().all()
        assert not grad[6:9].any()
        assert grad[9:].isfinite().all()


@pytest.mark.parametrize("op", ["kernels", "public"])
def test_gradients_equal_fp64_autograd_of_the_reference(op):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=5, eta_max=0.1)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (0, 1, 4, 2))
    slots, starts = runs((12, 1, 3, 8))
    exact = in_double(state)
    x, q, grad = torch.randn(3, int(starts[-1]), 2, 16, device=DEVICE).unbind()
    wide = [z.double().requires_grad_() for z in (x, q)]
    expected = titans_chunk_slots_reference(*wide, weights, rule, (exact,), slots, starts)
    expected = torch.autograd.grad(expected, wide, grad.double())
    given = [x.requires_grad_(), q.requires_grad_()]
    if op == "kernels":
        out = differentiable_chunk(*given, weights, rule, state, slots, starts)
    else:
        out = titans_chunk(*given, weights, rule, (state,), slots, starts)
    for found, right in zip(torch.autograd.grad(out, given, grad), expected, strict=True):
        assert relative(found, right) < (1e-5 if op == "public" and DEVICE == "cpu" else 2e-3)


def good():
    rule = TitansRule(chunk_size=4)
    weights = linear_weights(2, 16)
    x, q = torch.randn(2, 6, 2, 16)
    slots, starts = torch.tensor([1, 2]), torch.tensor([0, 1, 6], dtype=torch.int32)
    return dict(x=x, q=q, weights=weights, rule=rule, clocks=(pool(weights, rule, (0, 1)),), slots=slots, starts=starts)


def learned(weights):
    return type(weights)(**{name: tensor.clone().requires_grad_() for name, tensor in vars(weights).items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda a: {"q": a["q"][:1]}, "q's shape is"),
        (lambda a: {"x": a["x"][:0], "q": a["q"][:0]}, "x's shape is .* at least 1"),
        (lambda a: {"slots": torch.tensor([1, 3])}, "slots is from 1 to 3; it must be 0"),
        (lambda a: {"slots": torch.tensor([], dtype=torch.int32)}, "number of sequences is 0"),
        (lambda a: {"starts": None, "x": a["x"][:5], "q": a["q"][:5]}, "number of rows is 5; .* multiple of 2"),
        (lambda a: {"starts": torch.tensor([0, 1, 6])}, "starts' dtype is torch.int64"),
        (lambda a: {"starts": a["starts"][:2]}, r"starts's shape"),
        (lambda a: {"starts": a["starts"] + 1}, r"starts' ends is \(1, 7\)"),
        (lambda a: {"starts": torch.tensor([0, 6, 6], dtype=torch.int32)}, "shortest run is 0"),
        (lambda a: {"weights": learned(a["weights"])}, "weights.key is to be learned"),
        (lambda a: {"rule": TitansRule(chunk_size=5)}, r"clocks\[0\].ring_k's shape"),
        (lambda a: {"clocks": (a["clocks"][0].with_(position=a["clocks"][0].position + 3),)}, "ring in slot 2 is full"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    arguments = good()
    with pytest.raises(ValueError, match=message):
        titans_chunk(**(arguments | changes(arguments)))
