"""Decode and commit of MLP memories against the chunk form, on slots of a pool."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.layout import TitansRule
from hope_kernels.pool import weights_in
from hope_kernels.titans_chunk.mlp_rows import memories_of, mlp_state_of
from hope_kernels.titans_chunk.reference_memories import titans_chunk_memories_reference
from hope_kernels.titans_commit.mlp_op import mlp_commit, mlp_commit_slots_reference
from hope_kernels.titans_decode import titans_decode
from hope_kernels.titans_decode.mlp_op import mlp_decode_slots_reference
from support.mlp_data import mlp_pool, mlp_weights, twin, written
from support.titans_data import relative

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
# Relative error of outputs and of every state tensor against fp64 on the same rounded inputs, by the coarsest dtype.
TOLERANCE = {F32: 5e-6, F16: 2e-3, BF16: 1.5e-2}

CASES = [  # H, D, F, C, x, weights, matrices, ring
    pytest.param(2, 16, 16, 5, F32, F32, F32, F32, id="odd"),
    pytest.param(1, 16, 32, 17, F16, F16, F16, F16, id="fp16-twice-as-wide"),
    *(
        pytest.param(*case[1:], id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("128-128-fp32", 16, 128, 128, 16, BF16, BF16, F32, F32),
            ("128-256-fp32", 4, 128, 256, 64, BF16, BF16, F32, F16),
            ("128-256-fp16", 4, 128, 256, 64, BF16, BF16, F16, F16),
            ("64-64-fp16", 32, 64, 64, 16, BF16, BF16, F16, F16),
            ("64-128-weights-fp32", 2, 64, 128, 16, F32, F32, F32, F32),
        )
    ),
]


COMMIT_CASES = [  # H, D, F, C, weights, matrices, ring
    pytest.param(2, 16, 16, 5, F32, F32, F32, id="odd"),
    pytest.param(1, 16, 32, 17, F16, F16, F16, id="fp16-twice-as-wide"),
    pytest.param(1, 32, 64, 64, BF16, F32, BF16, id="bf16-ring"),
    pytest.param(1, 32, 64, 33, F32, F16, F32, id="fp32-ring"),
    *(
        pytest.param(*case[1:], id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("128-128-fp32", 16, 128, 128, 64, BF16, F32, F32),
            ("128-256-fp32-weights", 4, 128, 256, 50, F32, F32, F32),
            ("128-128-fp16-ring", 16, 128, 128, 64, BF16, F32, F16),
            ("128-256-fp16", 4, 128, 256, 64, F16, F16, F16),
            ("128-64-32-fp16", 3, 128, 64, 32, F32, F16, F16),
            ("128-128-16-fp32", 16, 128, 128, 16, BF16, F32, F16),
            ("128-128-16-fp16", 16, 128, 128, 16, BF16, F16, F16),
            ("128-256-bf16-ring", 3, 128, 256, 64, F32, F32, BF16),
            ("64-64-fp16", 32, 64, 64, 64, BF16, F16, F16),
            ("64-128-fp32", 32, 64, 128, 64, F32, F32, F32),
            ("64-128-16-fp32", 3, 64, 128, 16, BF16, F32, F32),
            ("64-64-16-fp16", 3, 64, 64, 16, BF16, F16, F16),
            ("64-512-fp16", 2, 64, 512, 40, BF16, F32, F16),
        )
    ),
]
# The same of what a commit writes: fp32 rings go into products as two parts, others in fp16.
COMMIT_TOLERANCE = {F32: 5e-6, F16: 2e-3, BF16: 2e-3}


def launch(*arguments):
    from hope_kernels.titans_decode.mlp_launch import launch_mlp_decode

    return launch_mlp_decode(*arguments)


def slots_of(*ids):
    return torch.tensor(ids, dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "size", "hidden", "chunk", "x_dtype", "weights_dtype", "dtype", "ring"), CASES)
def test_decode_equals_the_reference_token_after_token(
    heads, size, hidden, chunk, x_dtype, weights_dtype, dtype, ring, causal
):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=chunk, eta_max=0.2, causal=causal)
    weights = mlp_weights(heads, size, hidden, weights_dtype, DEVICE)
    state = mlp_pool(weights, rule, (0, 1, 2, chunk - 2), chunks=1, dtype=dtype, ring_dtype=ring)
    slots = slots_of(4, 0, 2, 1, 3)
    used = slots > 0
    tolerance = max(TOLERANCE[d] for d in (x_dtype, dtype, ring))
    for _ in range(2):
        x, q = (torch.randn(len(slots), heads, size, device=DEVICE).to(x_dtype) for _ in range(2))
        exact = twin(state, F64)
        expected = mlp_decode_slots_reference(x.double(), q.double(), weights_in(weights, F64), rule, exact, slots)
        out = launch(x, q, weights, rule, state, slots)
        assert not out[~used].any()
        assert relative(out[used], expected[used]) < tolerance
        for name, tensor in written(state).items():
            if causal or name not in ("ring_u", "ring_a", "ring_e"):
                assert relative(tensor[1:], written(exact)[name][1:]) < tolerance, name
            assert name == "position" or state.tensors()[name][0].isnan().all(), name


@pytest.mark.parametrize("causal", [True, False])
def test_the_reference_is_the_chunk_form_token_by_token_and_at_the_boundary(causal):
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=5, eta_max=0.3, causal=causal)
    weights = mlp_weights(2, 8, 12, F64)
    state = mlp_pool(weights, rule, (3, 0, 4), dtype=F64)
    slots = torch.tensor([2, 3, 1])
    for _ in range(7):
        x, q = torch.randn(2, 3, 2, 8, dtype=F64)
        before = twin(state)
        out = titans_decode(x, q, weights, rule, (state,), slots)
        mlp_commit(weights, rule, state, slots)
        for row, slot in enumerate(slots):
            one = before.with_tensors({n: t[slot : slot + 1] for n, t in before.tensors().items()})
            memories = memories_of(one)
            expected, (moved,) = titans_chunk_memories_reference(
                x[row][None, :, None], q[row][None, :, None], weights, rule, (memories,),
                positions=(int(memories.position),),
            )  # fmt: skip
            torch.testing.assert_close(out[row], expected[0, :, 0], rtol=1e-10, atol=1e-12)
            wanted = written(mlp_state_of(moved, weights, rule))
            for name, tensor in written(state).items():
                if causal or name not in ("ring_u", "ring_a", "ring_e"):
                    torch.testing.assert_close(tensor[slot], wanted[name][0], rtol=1e-9, atol=1e-11)


def test_without_slots_sequence_b_has_slot_b():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=8, eta_max=0.3)
    weights = mlp_weights(1, 16, 16, device=DEVICE)
    state = mlp_pool(weights, rule, (3, 0), chunks=0)
    view = state.with_tensors({name: tensor[1:] for name, tensor in state.tensors().items()})
    same = twin(state)
    x, q = torch.randn(2, 2, 1, 16, device=DEVICE)
    assert torch.equal(launch(x, q, weights, rule, view, None), launch(x, q, weights, rule, same, slots_of(1, 2)))
    for name, tensor in written(state).items():
        assert torch.equal(tensor[1:], written(same)[name][1:]), name


def test_a_full_ring_or_a_slot_that_does_not_exist_gives_nan_and_changes_nothing():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = mlp_weights(1, 16, 16, device=DEVICE)
    state = mlp_pool(weights, rule, (3, 1), chunks=0)
    state.position[1] = 4
    before = twin(state)
    x, q = torch.randn(2, 4, 1, 16, device=DEVICE)
    out = launch(x, q, weights, rule, state, slots_of(1, 3, -1, 2))
    assert out[:3].isnan().all()
    assert out[3].isfinite().all()
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[1], before.tensors()[name][1]), name


def fill_rings(state, weights, rule, slots):
    """Tokens for ``slots`` until their rings are full."""
    for slot in slots:
        for _ in range(rule.chunk_size - int(state.position[slot, 0])):
            x = torch.randn(1, state.inner.shape[1], state.inner.shape[4], device=DEVICE)
            mlp_decode_slots_reference(x, x, weights, rule, state, torch.tensor([slot], device=DEVICE))


@pytest.mark.parametrize(("heads", "size", "hidden", "chunk", "weights_dtype", "dtype", "ring"), COMMIT_CASES)
def test_commit_equals_the_reference_on_full_rings_and_leaves_the_others_alone(
    heads, size, hidden, chunk, weights_dtype, dtype, ring
):
    from hope_kernels.titans_commit.mlp_launch import launch_mlp_commit

    torch.manual_seed(0)
    rule = TitansRule(chunk_size=chunk, eta_max=0.2)
    weights = mlp_weights(heads, size, hidden, weights_dtype, DEVICE)
    state = mlp_pool(weights, rule, (0, chunk - 1, 2, chunk - 1, chunk - 1), chunks=1, dtype=dtype, ring_dtype=ring)
    slots = slots_of(4, 0, 2, 1, 0, 3)
    for full in ([2, 4], [2]):
        fill_rings(state, weights, rule, [*full, 5])
        exact, before = twin(state, F64), twin(state)
        mlp_commit_slots_reference(weights_in(weights, F64), exact, slots)
        launch_mlp_commit(weights, state, slots)
        for name, tensor in state.tensors().items():
            error = relative(tensor[full], exact.tensors()[name][full])
            assert error < max(COMMIT_TOLERANCE[ring], COMMIT_TOLERANCE[dtype]), name
            for slot in {1, 2, 3, 4, 5} - set(full):
                assert torch.equal(tensor[slot], before.tensors()[name][slot]), (name, slot)
            assert name == "position" or tensor[0].isnan().all(), name
        assert not any(t[full].any() for n, t in state.tensors().items() if n.startswith("ring") or n == "position")


def test_commit_without_slots_looks_at_every_row_and_with_none_at_nothing():
    from hope_kernels.titans_commit.mlp_launch import launch_mlp_commit

    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = mlp_weights(2, 16, 16, device=DEVICE)
    state = mlp_pool(weights, rule, (3, 1, 3), chunks=0)
    fill_rings(state, weights, rule, (1, 3))
    rows = state.with_tensors({name: tensor[1:].clone() for name, tensor in state.tensors().items()})
    launch_mlp_commit(weights, state, slots_of())
    assert state.position[1:, 0].tolist() == [4, 1, 4]
    launch_mlp_commit(weights, rows, None)
    launch_mlp_commit(weights, state, slots_of(3, 1))
    for name, tensor in rows.tensors().items():
        assert torch.equal(tensor, state.tensors()[name][1:]), name


def test_commit_leaves_alone_whoever_has_room_left():
    torch.manual_seed(0)
    rule = TitansRule(chunk_size=4, eta_max=0.3)
    weights = mlp_weights(2, 16, 16, device=DEVICE)
    state = mlp_pool(weights, rule, (3, 2), chunks=1)
    x, q = torch.randn(2, 1, 2, 16, device=DEVICE)
    titans_decode(x, q, weights, rule, (state,), slots_of(1))
    before = twin(state)
    mlp_commit(weights, rule, state, slots_of(2, 0, 1))
    assert state.position[1:, 0].tolist() == [0, 2]
    assert not torch.equal(state.inner[1], before.inner[1])
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor[2], before.tensors()[name][2]), name


def good():
    rule = TitansRule(chunk_size=4)
    weights = mlp_weights(2, 16, 32)
    x, q = torch.randn(2, 2, 2, 16)
    clocks, slots = (mlp_pool(weights, rule, (0, 1), chunks=0),), torch.tensor([1, 2])
    return dict(x=x, q=q, weights=weights, rule=rule, clocks=clocks, slots=slots)


def change(arguments, **changes):
    state = arguments["clocks"][0]
    return {"clocks": (state.with_tensors(state.tensors() | changes),)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda a: {"slots": torch.tensor([1, 3])}, "slots is from 1 to 3; it must be 0"),
        (lambda a: {"rule": TitansRule(chunk_size=5)}, r"clocks\[0\].ring_k's shape"),
        (lambda a: {"rule": TitansRule(chunk_size=4, retain_delta=False)}, "rule.retain_delta is False"),
        (lambda a: {"rule": TitansRule(chunk_size=4, dgd_hidden=True)}, "rule.dgd_hidden is True"),
        (lambda a: {"rule": TitansRule(chunk_size=4, memory_chunk_size=8)}, "rule.memory_chunk_size is 8"),
        (lambda a: {"clocks": a["clocks"] * 2}, "number of clocks is 2"),
        (lambda a: {"weights": mlp_weights(2, 32, 32)}, "weights.inner's shape is"),
        (lambda a: {"weights": mlp_weights(2, 16, 16)}, r"clocks\[0\].inner's shape"),
        (lambda a: change(a, outer=a["clocks"][0].outer.half()), r"clocks\[0\].outer's dtype"),
        (lambda a: change(a, ring_gate=a["clocks"][0].ring_gate.half()), "ring_gate's dtype"),
        (lambda a: change(a, inner=a["clocks"][0].inner.transpose(1, 2)), r"clocks\[0\].inner's shape"),
        (lambda a: change(a, position=a["clocks"][0].position + 4), r"ring in slots is \[1, 2\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    arguments = good()
    with pytest.raises(ValueError, match=message):
        titans_decode(**(arguments | changes(arguments)))
