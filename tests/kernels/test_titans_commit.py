"""Commit's kernels against the reference, on slots of a pool."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.layout import TitansRule
from hope_kernels.titans_commit import titans_commit
from hope_kernels.titans_commit.reference import titans_commit_slots_reference
from hope_kernels.titans_decode.reference import titans_decode_slots_reference
from support.titans_data import in_double, linear_weights, pool, relative, twin

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# Relative error of every state tensor against fp64 on the same rounded inputs, by the matrix's dtype.
TOLERANCE = {F32: 2e-6, F16: 5e-4, BF16: 4e-3}

CASES = [  # H, D, C, matrix, ring
    pytest.param(2, 32, 16, F32, F32, id="fp32"),
    pytest.param(3, 16, 5, F32, F32, id="odd"),
    pytest.param(1, 64, 33, F32, F16, id="fp16-ring"),
    pytest.param(2, 32, 8, F16, F16, id="fp16"),
    *(
        pytest.param(*case[1:], id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("128-16-fp32", 16, 128, 16, F32, F32),
            ("128-64-fp32", 16, 128, 64, F32, F32),
            ("128-16-fp16-ring", 16, 128, 16, F32, F16),
            ("128-64-fp16", 16, 128, 64, F16, F16),
            ("128-64-bf16", 3, 128, 64, BF16, BF16),
            ("128-50-bf16-ring", 3, 128, 50, F32, BF16),
            ("64-64-fp16", 32, 64, 64, F16, F16),
        )
    ),
]


def launch(state, slots):
    from hope_kernels.titans_commit.launch import launch_commit

    launch_commit(state, slots)


def fill_rings(state, weights, rule, slots):
    """Tokens for ``slots`` until their rings are full."""
    for slot in slots:
        for _ in range(rule.chunk_size - int(state.position[slot, 0])):
            x = torch.randn(1, *state.matrix.shape[1:3], device=DEVICE)
            titans_decode_slots_reference(x, x, weights, rule, (state,), torch.tensor([slot], device=DEVICE))


@pytest.mark.parametrize(("heads", "size", "chunk", "dtype", "ring"), CASES)
def test_full_rings_are_written_and_the_others_left_alone(heads, size, chunk, dtype, ring):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=chunk, eta_max=0.3)
    weights = linear_weights(heads, size, device=DEVICE)
    state = pool(weights, rule, (0, chunk - 1, 2, chunk - 1, chunk - 1), dtype=dtype, ring_dtype=ring)
    slots = torch.tensor([4, 0, 2, 1, 0, 3], dtype=torch.int32, device=DEVICE)
    for full in ([2, 4], [2]):
        fill_rings(state, weights, rule, [*full, 5])
        exact, before = in_double(state), twin(state)
        titans_commit_slots_reference(exact, slots)
        launch(state, slots)
        for name, tensor in state.tensors().items():
            assert relative(tensor[full], exact.tensors()[name][full]) < TOLERANCE[dtype], name
            for slot in {1, 2, 3, 4, 5} - set(full):
                assert torch.equal(tensor[slot], before.tensors()[name][slot]), (name, slot)
            assert name == "position" or tensor[0].isnan().all(), name
        assert not any(state.tensors()[name][full].any() for name in ("ring_k", "ring_w", "ring_gate", "position"))


def test_without_slots_every_row_is_looked_at():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (3, 1, 3))
    fill_rings(state, weights, rule, (1, 3))
    rows = state.with_(**{name: tensor[1:].clone() for name, tensor in state.tensors().items()})
    launch(rows, None)
    launch(state, torch.tensor([3, 1], device=DEVICE))
    for name, tensor in rows.tensors().items():
        assert torch.equal(tensor, state.tensors()[name][1:]), name


def test_with_no_slots_at_all_nothing_is_written():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (3, 1))
    fill_rings(state, weights, rule, (1,))
    before, none = twin(state), torch.tensor([], dtype=torch.int32, device=DEVICE)
    for commit in (launch, titans_commit):
        commit(state, none)
        for name, tensor in state.tensors().items():
            assert torch.equal(tensor[1:], before.tensors()[name][1:]), name


def test_the_public_op_commits_on_this_device():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = linear_weights(2, 16, device=DEVICE)
    state = pool(weights, rule, (3, 1))
    fill_rings(state, weights, rule, (1,))
    exact = in_double(state)
    titans_commit(state, torch.tensor([1, 2], device=DEVICE))
    titans_commit(exact, torch.tensor([1, 2], device=DEVICE))
    assert int(state.position[1].sum()) == 0
    assert relative(state.matrix[1:], exact.matrix[1:]) < TOLERANCE[F32]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slots": torch.tensor([1, 7])}, "slots is from 1 to 7; it must be 0"),
        ({"slots": torch.tensor([[1]])}, "slots's shape"),
        ({"ring_w": torch.zeros(3, 2, 4, 8)}, "state.ring_w's shape"),
        ({"ring_w": torch.zeros(3, 2, 4, 16).half()}, "state.ring_w's dtype"),
        ({"position": torch.zeros(3, 2)}, "state.position's dtype"),
        ({"matrix": torch.zeros(3, 2, 16, 32)[..., ::2]}, "state.matrix's strides"),
        ({"matrix": torch.zeros(3, 2, 16)}, "state.matrix's shape"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    rule = TitansRule(chunk_size=4)
    state = pool(linear_weights(2, 16), rule, (0, 1))
    slots = changes.pop("slots", None)
    with pytest.raises(ValueError, match=message):
        titans_commit(state.with_(**changes), slots)
