"""Decode's kernels against the reference, on slots of a pool."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.layout import TitansRule
from hope_kernels.pool import take, weights_in
from hope_kernels.titans_decode import titans_decode
from hope_kernels.titans_decode.reference import titans_decode_reference, titans_decode_slots_reference
from support.titans_data import in_double, linear_weights, pool, relative, twin

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# Relative error of outputs and of every state tensor against fp64 on the same rounded inputs, by the coarsest dtype.
TOLERANCE = {F32: 2e-6, F16: 1.5e-3, BF16: 1.2e-2}

CASES = [  # H, D, C, x, weights, matrix, ring
    pytest.param(2, 32, 16, F32, F32, F32, F32, id="fp32"),
    pytest.param(3, 16, 5, F32, F32, F32, F32, id="odd"),
    pytest.param(1, 64, 33, F16, F16, F32, F16, id="fp16-ring"),
    pytest.param(2, 32, 16, F16, F16, F16, F16, id="fp16"),
    *(
        pytest.param(*case[1:], id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("128-fp32", 16, 128, 16, BF16, BF16, F32, F32),
            ("128-bf16-ring", 3, 128, 64, BF16, BF16, F32, BF16),
            ("128-fp16", 16, 128, 64, BF16, BF16, F16, F16),
            ("128-bf16", 2, 128, 64, BF16, BF16, BF16, BF16),
            ("64-fp16", 32, 64, 16, F32, F32, F16, F16),
            ("128-weights-fp32", 2, 128, 16, F32, F32, F32, F32),
        )
    ),
]


def launch(*arguments):
    from hope_kernels.titans_decode.launch import launch_decode

    return launch_decode(*arguments)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "size", "chunk", "x_dtype", "weights_dtype", "dtype", "ring"), CASES)
def test_decode_equals_the_reference_token_after_token(heads, size, chunk, x_dtype, weights_dtype, dtype, ring, causal):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=chunk, eta_max=0.3, causal=causal)
    weights = linear_weights(heads, size, weights_dtype, DEVICE)
    state = pool(weights, rule, (0, 1, 2, chunk - 2, chunk // 2), dtype=dtype, ring_dtype=ring)
    slots = torch.tensor([4, 0, 2, 5, 1, 0, 3], dtype=torch.int32, device=DEVICE)
    used = slots > 0
    tolerance = max(TOLERANCE[d] for d in (x_dtype, dtype, ring))
    for _ in range(2):
        x, q = (torch.randn(len(slots), heads, size, device=DEVICE).to(x_dtype) for _ in range(2))
        exact = in_double(state)
        expected = titans_decode_slots_reference(x.double(), q.double(), weights, rule, (exact,), slots)
        out = launch(x, q, weights, rule, state, slots)
        assert not out[~used].any()
        assert relative(out[used], expected[used]) < tolerance
        for name, tensor in state.tensors().items():
            assert relative(tensor[1:], exact.tensors()[name][1:]) < tolerance, name
            assert name == "position" or tensor[0].isnan().all(), name


def test_without_slots_sequence_b_has_slot_b():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (3, 0, 6))
    view = state.with_(**{name: tensor[1:] for name, tensor in state.tensors().items()})
    same = twin(state)
    x, q = torch.randn(2, 3, 2, 16, device=DEVICE)
    slots = torch.tensor([1, 2, 3], device=DEVICE)
    assert torch.equal(launch(x, q, weights, rule, view, None), launch(x, q, weights, rule, same, slots))
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[1:], same.tensors()[name][1:]), name


def test_programs_may_share_a_head_by_columns():
    from hope_kernels.titans_decode.launch import ReadBlocks

    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.3)
    weights = linear_weights(2, 32, device=DEVICE)
    state = pool(weights, rule, (3, 0, 7, 1))
    whole = twin(state)
    slots = torch.tensor([2, 1, 0, 4, 3], device=DEVICE)
    x, q = torch.randn(2, 5, 2, 32, device=DEVICE)
    split = ReadBlocks(wide=4, deep=2, columns=16, ring_rows=4, stages=2, warps=1)
    out = launch(x, q, weights, rule, state, slots, split)
    assert relative(out, launch(x, q, weights, rule, whole, slots)) < TOLERANCE[F32]
    for name, tensor in state.tensors().items():
        assert relative(tensor[1:], whole.tensors()[name][1:]) < TOLERANCE[F32], name


def test_a_full_ring_or_a_slot_that_does_not_exist_gives_nan_and_changes_nothing():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (3, 1))
    state.position[1] = 4
    before = twin(state)
    x, q = torch.randn(2, 4, 2, 16, device=DEVICE)
    out = launch(x, q, weights, rule, state, torch.tensor([1, 3, -1, 2], device=DEVICE))
    assert out[:3].isnan().all()
    assert out[3].isfinite().all()
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[1], before.tensors()[name][1]), name


def test_a_pool_may_be_a_slice_of_a_wider_one():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    dense = pool(weights, rule, (3, 5))
    layers = {
        name: torch.stack([torch.zeros_like(t), t, torch.zeros_like(t)], 1) for name, t in dense.tensors().items()
    }
    sliced = dense.with_(**{name: tensor[:, 1] for name, tensor in layers.items()})
    x, q = torch.randn(2, 2, 2, 16, device=DEVICE)
    slots = torch.tensor([2, 1], device=DEVICE)
    assert torch.equal(launch(x, q, weights, rule, dense, slots), launch(x, q, weights, rule, sliced, slots))
    for name, tensor in layers.items():
        assert not tensor[:, ::2].any(), name
        assert torch.equal(tensor[1:, 1], dense.tensors()[name][1:]), name


def good():
    rule = TitansRule(chunk_size=4)
    weights = linear_weights(2, 16)
    x, q = torch.randn(2, 2, 2, 16)
    clocks, slots = (pool(weights, rule, (0, 1)),), torch.tensor([1, 2])
    return dict(x=x, q=q, weights=weights, rule=rule, clocks=clocks, slots=slots)


def change(state, **changes):
    return (state[0].with_(**changes),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda a: {"q": a["q"][:1]}, "q's shape is"),
        (lambda a: {"q": a["q"].half()}, "q's dtype is torch.float16"),
        (lambda a: {"x": a["x"][:0], "q": a["q"][:0]}, "x's shape is .* at least 1"),
        (lambda a: {"x": a["x"].long(), "q": a["q"].long()}, "x's dtype is torch.int64"),
        (lambda a: {"slots": torch.tensor([1, 3])}, "slots is from 1 to 3; it must be 0"),
        (lambda a: {"slots": torch.tensor([1, 1])}, "slots is .* different from each other"),
        (lambda a: {"slots": torch.tensor([1.0, 2.0])}, "slots' dtype"),
        (lambda a: {"slots": torch.tensor([1])}, "slots's shape"),
        (lambda a: {"slots": None}, "number of sequences is 2; .* first axis, 3"),
        (lambda a: {"clocks": a["clocks"] * 2}, "number of clocks is 2"),
        (lambda a: {"weights": linear_weights(2, 32)}, "weights.key's shape is"),
        (
            lambda a: {"clocks": change(a["clocks"], matrix=a["clocks"][0].matrix[..., :8])},
            r"clocks\[0\].matrix's shape",
        ),
        (lambda a: {"clocks": change(a["clocks"], matrix=a["clocks"][0].matrix.mT)}, r"clocks\[0\].matrix's strides"),
        (lambda a: {"clocks": change(a["clocks"], ring_gate=a["clocks"][0].ring_gate.half())}, "ring_gate's dtype"),
        (lambda a: {"clocks": change(a["clocks"], position=a["clocks"][0].position + 4)}, r"ring in slots is \[1, 2\]"),
        (lambda a: {"rule": TitansRule(chunk_size=5)}, r"clocks\[0\].ring_k's shape"),
        (lambda a: {"rule": TitansRule(chunk_size=4, retain_delta=False)}, "rule.retain_delta is False"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    arguments = good()
    with pytest.raises(ValueError, match=message):
        titans_decode(**(arguments | changes(arguments)))


@pytest.mark.parametrize("causal", [True, False])
def test_slot_by_slot_in_the_pool_is_the_batched_reference(causal):
    """Every place of a ring, padding and neighbours: the same numbers; and alone they are the same to the bit."""
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=6, eta_max=0.3, causal=causal)
    weights = in_double_weights(linear_weights(2, 16))
    state = in_double(pool(weights, rule, (0, 1, 2, 5, 3)))
    batched, alone = twin(state), twin(state)
    slots = torch.tensor([4, 0, 2, 5, 1, 3])
    used = slots[slots > 0].long()
    x, q = torch.randn(2, len(slots), 2, 16, dtype=torch.float64)
    out = titans_decode_slots_reference(x, q, weights, rule, (state,), slots)
    taken = take(batched, used, torch.float64)
    expected = titans_decode_reference(x[slots > 0], q[slots > 0], weights, rule, (taken,))
    assert relative(out[slots > 0], expected) < 1e-12 and not out[1].any()
    for name, tensor in state.tensors().items():
        assert relative(tensor[used], taken.tensors()[name]) < 1e-12, name
    for row, slot in enumerate(slots.tolist()):
        one = titans_decode_slots_reference(x[row][None], q[row][None], weights, rule, (alone,), slots[row : row + 1])
        assert torch.equal(one[0], out[row])
        assert not slot or all(torch.equal(t[slot], state.tensors()[n][slot]) for n, t in alone.tensors().items())


def in_double_weights(weights):
    return weights_in(weights, torch.float64)


def test_the_public_op_decodes_on_this_device():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (3, 7))
    exact = in_double(state)
    slots = torch.tensor([2, 1], device=DEVICE)
    x, q = torch.randn(2, 2, 2, 16, device=DEVICE)
    out = titans_decode(x, q, weights, rule, (state,), slots)
    expected = titans_decode_slots_reference(x.double(), q.double(), weights, rule, (exact,), slots)
    assert relative(out, expected) < TOLERANCE[F32]
