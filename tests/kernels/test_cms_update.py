"""The update's kernels against the reference, on slots of a pool."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hope_kernels.cms_update import LevelPools, Rows, cms_update
from hope_kernels.cms_update.reference import cms_update_reference
from support.titans_data import relative

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F16, BF16, F64 = torch.float32, torch.float16, torch.bfloat16, torch.float64
# Relative error of every pool against fp64 on the same rounded inputs, by the pool's dtype.
TOLERANCE = {F32: 2e-6, F16: 5e-4, BF16: 4e-3}
RUNS = (70, 0, 33, 2, 100)  # the rows of five sequences
SLOTS = (4, 2, 0, 6, 1)
FIRED = (True, True, True, False, True)

CASES = [  # layers, d_out, r, rows, delta, gradient and momentum
    pytest.param(2, 96, 16, F32, F32, F32, id="fp32"),
    pytest.param(1, 50, 5, F32, F32, F32, id="odd"),
    pytest.param(2, 130, 20, F16, F16, F32, id="fp16-delta"),
    pytest.param(1, 33, 16, F16, F16, F16, id="fp16"),
    *(
        pytest.param(*case[1:], id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("inner-bf16", 2, 8192, 16, BF16, BF16, F32),
            ("outer-bf16-rows", 3, 2048, 32, BF16, F32, F32),
            ("bf16", 1, 2048, 16, BF16, BF16, BF16),
            ("rank-64", 1, 777, 64, F32, F32, F32),
            ("rank-1", 1, 777, 1, BF16, F32, F32),
        )
    ),
]


def launch(pools, addition, slots, fired, rate, decay, beta, scale):
    from hope_kernels.cms_update.launch import Step, launch_rows, launch_sums

    step = Step(slots=slots, fired=fired, rate=rate, decay=decay, beta=beta, scale=scale)
    (launch_rows if isinstance(addition, Rows) else launch_sums)(pools, addition, step)


def pools_of(layers, d_out, rank, delta, other, *, momentum):
    """Seven slots with an open chunk each; the null slot is NaN."""
    tensors = [torch.randn(7, layers, d_out, rank, device=DEVICE) for _ in range(2 + momentum)]
    for tensor in tensors:
        tensor[0] = torch.nan
    return LevelPools(
        delta=tensors[0].to(delta), gradient=tensors[1].to(other), momentum=tensors[2].to(other) if momentum else None
    )


def in_double(pools):
    return LevelPools(**{name: tensor.double() for name, tensor in pools.tensors().items()})


def addition_of(form, layers, d_out, rank, dtype):
    bounds = torch.tensor([0, *RUNS], device=DEVICE).cumsum(0).to(torch.int32)
    if form == "sums":
        return torch.randn(len(RUNS), layers, d_out, rank, device=DEVICE).to(dtype)
    count = sum(RUNS)
    # A slice of wider rows, as the gradient of one of several matrices behind a joint product is.
    grad = torch.randn(layers, count, d_out + 8, device=DEVICE).to(dtype)[..., :d_out]
    projected = torch.randn(layers, count, rank, device=DEVICE).to(dtype)
    return Rows(grad=grad, projected=projected, cu_seqlens=bounds)


def widened(addition):
    if isinstance(addition, Rows):
        return Rows(grad=addition.grad.double(), projected=addition.projected.double(), cu_seqlens=addition.cu_seqlens)
    return addition.double()


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("form", ["rows", "sums"])
@pytest.mark.parametrize(("layers", "d_out", "rank", "dtype", "delta", "other"), CASES)
def test_two_calls_equal_the_reference(layers, d_out, rank, dtype, delta, other, form, momentum):
    torch.manual_seed(0)
    slots = torch.tensor(SLOTS, device=DEVICE)
    pools = pools_of(layers, d_out, rank, delta, other, momentum=momentum)
    rate, decay = torch.rand(layers, device=DEVICE), torch.rand(layers, device=DEVICE)
    for ends in (FIRED, FIRED[::-1]):
        fired = torch.tensor(ends, device=DEVICE)
        scale = torch.rand(len(SLOTS), device=DEVICE)
        addition = addition_of(form, layers, d_out, rank, dtype)
        before, exact = in_double(pools), in_double(pools)
        arguments = (slots, fired, rate.double(), decay.double(), 0.9, scale.double())
        cms_update_reference(exact, widened(addition), *arguments)
        launch(pools, addition, slots, fired, rate, decay, 0.9, scale)
        for name, tensor in pools.tensors().items():
            for slot in set(SLOTS) - {0}:
                expected = exact.tensors()[name][slot]
                if expected.any():
                    assert relative(tensor[slot], expected) < TOLERANCE[tensor.dtype], (name, slot)
                else:
                    assert not tensor[slot].any(), (name, slot)
            for slot in (3, 5):
                assert torch.equal(tensor[slot].double(), before.tensors()[name][slot]), (name, slot)
            assert tensor[0].isnan().all(), name


@pytest.mark.parametrize("form", ["rows", "sums"])
def test_an_open_chunk_leaves_the_delta_alone_to_the_bit(form):
    torch.manual_seed(0)
    pools = pools_of(2, 48, 16, F32, F32, momentum=True)
    before = in_double(pools)
    slots, never = torch.tensor(SLOTS, device=DEVICE), torch.zeros(5, dtype=torch.bool, device=DEVICE)
    rate = torch.rand(2, device=DEVICE)
    launch(pools, addition_of(form, 2, 48, 16, F32), slots, never, rate, rate, 0.9, None)
    for name in ("delta", "momentum"):
        assert torch.equal(pools.tensors()[name][1:].double(), before.tensors()[name][1:]), name
    assert not torch.equal(pools.gradient[4].double(), before.gradient[4])


@pytest.mark.parametrize("form", ["rows", "sums"])
def test_without_slots_sequence_b_has_slot_b_and_pools_may_be_slices_of_wider_ones(form):
    torch.manual_seed(0)
    wide = pools_of(3, 48, 16, F32, F32, momentum=True)
    slots, fired = torch.tensor([2, 3, 4, 5, 6], device=DEVICE), torch.tensor(FIRED, device=DEVICE)
    addition, rate = addition_of(form, 1, 48, 16, F32), torch.rand(1, device=DEVICE)
    same = LevelPools(**{name: tensor[:, 1:2].clone() for name, tensor in wide.tensors().items()})
    before = in_double(wide)
    part = LevelPools(**{name: tensor[2:, 1:2] for name, tensor in wide.tensors().items()})
    launch(part, addition, None, fired, rate, rate, 0.5, None)
    launch(same, addition, slots, fired, rate, rate, 0.5, None)
    for name, tensor in wide.tensors().items():
        assert torch.equal(tensor[1:, 1:2], same.tensors()[name][1:]), name
        assert torch.equal(tensor[1:, ::2].double(), before.tensors()[name][1:, ::2]), name


def test_rows_in_two_calls_make_the_update_of_one():
    torch.manual_seed(0)
    whole = pools_of(1, 48, 16, F32, F32, momentum=False)
    halves = LevelPools(**{name: tensor.clone() for name, tensor in whole.tensors().items()})
    rows = addition_of("rows", 1, 48, 16, F32)
    slots, fired = torch.tensor(SLOTS, device=DEVICE), torch.tensor(FIRED, device=DEVICE)
    rate = torch.rand(1, device=DEVICE)
    launch(whole, rows, slots, fired, rate, rate, 0.0, None)
    bounds = rows.cu_seqlens.long().tolist()
    for half in (0, 1):
        runs = [range(*pair)[half::2] for pair in pairwise(bounds)]
        index = torch.tensor([t for run in runs for t in run], device=DEVICE)
        cu = torch.tensor([0, *(len(run) for run in runs)], device=DEVICE).cumsum(0).to(torch.int32)
        part = Rows(grad=rows.grad[:, index], projected=rows.projected[:, index], cu_seqlens=cu)
        launch(halves, part, slots, fired if half else torch.zeros_like(fired), rate, rate, 0.0, None)
    for name, tensor in whole.tensors().items():
        assert relative(halves.tensors()[name][1:], tensor[1:]) < TOLERANCE[F32], name


@pytest.mark.parametrize("momentum", [False, True])
def test_the_public_op_makes_what_the_levels_optimizers_make(momentum):
    torch.manual_seed(0)
    pools = pools_of(3, 20, 4, F32, F32, momentum=momentum)
    before = in_double(pools)
    slots, fired = torch.tensor([5, 2], device=DEVICE), torch.tensor([True, False], device=DEVICE)
    rate, decay = torch.rand(3, device=DEVICE), torch.rand(3, device=DEVICE)
    sums = torch.randn(2, 3, 20, 4, device=DEVICE)
    cms_update(pools, sums, slots, fired, rate, decay, beta=0.9 if momentum else None)
    gradient = before.gradient[5] + sums[0]
    step = 0.9 * before.momentum[5] + gradient if momentum else gradient
    expected = decay[:, None, None] * before.delta[5] - rate[:, None, None] * step
    assert relative(pools.delta[5], expected) < TOLERANCE[F32]
    assert not pools.gradient[5].any()
    assert relative(pools.gradient[2], before.gradient[2] + sums[1]) < TOLERANCE[F32]
    assert not momentum or relative(pools.momentum[5], step) < TOLERANCE[F32]


def test_full_deltas_are_updated_too():
    torch.manual_seed(0)
    pools = pools_of(1, 24, 300, F32, F32, momentum=True)
    exact = in_double(pools)
    slots, fired, one = torch.tensor([3]), torch.tensor([True]), torch.ones(1)
    slots, fired, one = (t.to(DEVICE) for t in (slots, fired, one))
    sums = torch.randn(1, 1, 24, 300, device=DEVICE)
    launch(pools, sums, slots, fired, 0.1 * one, 0.9 * one, 0.5, None)
    cms_update_reference(exact, sums.double(), slots, fired, 0.1 * one.double(), 0.9 * one.double(), 0.5, None)
    for name, tensor in pools.tensors().items():
        assert relative(tensor[1:], exact.tensors()[name][1:]) < TOLERANCE[F32], name


def good():
    pools = pools_of(2, 8, 4, F32, F32, momentum=False)
    vector = torch.rand(2, device=DEVICE)
    return {
        "pools": pools,
        "addition": torch.randn(2, 2, 8, 4, device=DEVICE),
        "slots": torch.tensor([1, 2], device=DEVICE),
        "fired": torch.tensor([True, False], device=DEVICE),
        "rate": vector,
        "decay": vector,
    }


def rows(**changes):
    cu = torch.tensor([0, 2, 3], dtype=torch.int32, device=DEVICE)
    parts = dict(grad=torch.randn(2, 3, 8, device=DEVICE), projected=torch.randn(2, 3, 4, device=DEVICE), cu_seqlens=cu)
    return Rows(**(parts | {name: change(parts[name]) for name, change in changes.items()}))


def other(pools, **changes):
    return LevelPools(**({"momentum": None} | pools.tensors() | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda a: {"addition": a["addition"][:1]}, r"slots's shape is \(2,\); it must be \[B\] = \(1,\)"),
        (lambda a: {"addition": a["addition"][:0]}, "addition's shape is"),
        (lambda a: {"addition": a["addition"][..., :2]}, "addition's shape is"),
        (lambda a: {"addition": a["addition"].int()}, "addition's dtype"),
        (lambda a: {"addition": a["addition"].mT.contiguous().mT}, "addition's strides"),
        (lambda a: {"addition": rows(grad=lambda t: t[:1])}, "addition.grad's shape"),
        (lambda a: {"addition": rows(grad=lambda t: t[0])}, "addition.grad's shape"),
        (lambda a: {"addition": rows(grad=lambda t: t.mT.contiguous().mT)}, "addition.grad's strides"),
        (lambda a: {"addition": rows(grad=lambda t: t.half())}, "addition.projected's dtype"),
        (lambda a: {"addition": rows(projected=lambda t: t[:, :2])}, "addition.projected's shape"),
        (lambda a: {"addition": rows(projected=lambda t: t.mT.contiguous().mT)}, "addition.projected's strides"),
        (lambda a: {"addition": rows(cu_seqlens=lambda t: t.long())}, "addition.cu_seqlens's dtype"),
        (lambda a: {"slots": torch.tensor([1, 1], device=DEVICE)}, "different from each other"),
        (lambda a: {"slots": torch.tensor([1, 7], device=DEVICE)}, "slots is from 1 to 7"),
        (lambda a: {"slots": None}, "number of sequences is 2; .* first axis, 7"),
        (lambda a: {"fired": a["fired"][:1]}, "fired's shape"),
        (lambda a: {"fired": a["fired"].int()}, "fired's dtype is torch.int32; it must be bool"),
        (lambda a: {"rate": a["rate"][:1]}, r"rate's shape is \(1,\); it must be \[L\] = \(2,\)"),
        (lambda a: {"decay": a["decay"].double()}, "decay's dtype is torch.float64; it must be float32"),
        (lambda a: {"scale": a["rate"][:1]}, "scale's shape"),
        (lambda a: {"beta": 0.9}, "beta is 0.9; it must be None"),
        (lambda a: {"pools": other(a["pools"], momentum=a["pools"].delta), "beta": 1.0}, r"beta is 1.0; .* \[0, 1\)"),
        (lambda a: {"pools": other(a["pools"], momentum=a["pools"].delta)}, r"beta is None; .* \[0, 1\)"),
        (lambda a: {"pools": other(a["pools"], gradient=a["pools"].delta[:1])}, "pools.gradient's shape"),
        (lambda a: {"pools": other(a["pools"], gradient=a["pools"].delta.int())}, "pools.gradient's dtype"),
        (lambda a: {"pools": other(a["pools"], delta=a["pools"].delta.mT.contiguous().mT)}, "pools.delta's strides"),
        (lambda a: {"pools": other(a["pools"], delta=a["pools"].delta[0])}, "pools.delta's shape"),
        (lambda a: {"pools": other(a["pools"], delta=a["pools"].delta.requires_grad_())}, "pools.delta is a tensor"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    arguments = good()
    if DEVICE == "cuda" and message in ("different from each other", "slots is from 1 to 7"):
        pytest.skip("a CUDA tensor is not looked at from the host")
    with pytest.raises(ValueError, match=message):
        cms_update(**(arguments | changes(arguments)))
