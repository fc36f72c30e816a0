"""The delta's kernels against the reference, on slots of a pool."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.cms_delta import cms_delta
from hope_kernels.cms_delta.reference import cms_delta_rows_reference
from support.titans_data import relative

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# Relative error of outputs and gradients against fp64 on the same rounded inputs, by the coarsest dtype.
TOLERANCE = {F32: 2e-6, F16: 1e-3, BF16: 8e-3}
RUNS = (1, 0, 63, 2, 100, 0)  # the rows of six sequences
SLOTS = (4, 2, 0, 4, 5, 1)  # one has no memory, two share one

CASES = [  # d_in, d_out, r, rows, delta
    pytest.param(64, 96, 16, F32, F32, id="fp32"),
    pytest.param(37, 50, 5, F32, F32, id="odd"),
    pytest.param(300, 130, 16, F16, F16, id="fp16"),
    pytest.param(40, 33, 20, F16, F32, id="fp16-rows"),
    pytest.param(16, 300, 32, F32, F16, id="fp16-delta"),
    *(
        pytest.param(*case[1:], id=case[0], marks=pytest.mark.cuda)
        for case in (
            ("inner-bf16", 2048, 8192, 16, BF16, BF16),
            ("outer-bf16", 8192, 2048, 16, BF16, BF16),
            ("inner-bf16-32", 2048, 8192, 32, BF16, BF16),
            ("inner-bf16-rows", 2048, 8192, 16, BF16, F32),
            ("fp32", 2048, 2048, 16, F32, F32),
            ("rank-64", 1000, 777, 64, F32, BF16),
            ("rank-1", 1000, 777, 1, BF16, BF16),
            ("fp16-40", 520, 1000, 40, F16, F16),
        )
    ),
]


def decode(y, x, delta, projection, slots):
    from hope_kernels.cms_delta.launch import launch_decode

    launch_decode(y, x, delta, projection, slots)
    return y


def ragged(y, x, delta, projection, slots, cu_seqlens):
    from hope_kernels.cms_delta.launch import launch_ragged

    launch_ragged(y, x @ projection.mT, delta, slots, cu_seqlens)
    return y


def differentiable(*arguments):
    from hope_kernels.cms_delta.gradient import CmsDelta

    return CmsDelta.apply(*arguments)


def inputs(rows, d_in, d_out, rank, dtype, delta_dtype):
    """y, x, a pool of six slots whose null slot is NaN, and the projection; base and delta of one size."""
    y, x = (torch.randn(rows, d, device=DEVICE).to(dtype) for d in (d_out, d_in))
    delta = torch.randn(6, d_out, rank, device=DEVICE) / rank**0.5
    delta[0] = torch.nan
    projection = torch.randn(rank, d_in, device=DEVICE) / d_in**0.5
    return y, x, delta.to(delta_dtype), projection.to(dtype)


def runs(*lengths):
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)


def exact(y, x, delta, projection, slots, cu_seqlens=None):
    return cms_delta_rows_reference(y.double(), x.double(), delta.double(), projection.double(), slots, cu_seqlens)


@pytest.mark.parametrize(("d_in", "d_out", "rank", "dtype", "delta_dtype"), CASES)
def test_one_row_a_sequence_equals_the_reference(d_in, d_out, rank, dtype, delta_dtype):
    torch.manual_seed(0)
    slots = torch.tensor([3, 0, 5, 1, 3, 0, 2], dtype=torch.int32, device=DEVICE)
    for _ in range(2):
        y, x, delta, projection = inputs(len(slots), d_in, d_out, rank, dtype, delta_dtype)
        before, expected = y.clone(), exact(y, x, delta, projection, slots)
        decode(y, x, delta, projection, slots)
        assert relative(y, expected) < TOLERANCE[dtype]
        assert torch.equal(y[slots == 0], before[slots == 0])
        assert not torch.equal(y[slots > 0], before[slots > 0])


@pytest.mark.parametrize(("d_in", "d_out", "rank", "dtype", "delta_dtype"), CASES)
def test_runs_of_rows_equal_the_reference(d_in, d_out, rank, dtype, delta_dtype):
    torch.manual_seed(0)
    cu, slots = runs(*RUNS), torch.tensor(SLOTS, device=DEVICE)
    for _ in range(2):
        y, x, delta, projection = inputs(sum(RUNS), d_in, d_out, rank, dtype, delta_dtype)
        before, expected = y.clone(), exact(y, x, delta, projection, slots, cu)
        ragged(y, x, delta, projection, slots, cu)
        assert relative(y, expected) < TOLERANCE[dtype]
        assert torch.equal(y[1:64], before[1:64])


@pytest.mark.parametrize("with_slots", [True, False])
@pytest.mark.parametrize(("d_in", "d_out", "rank", "dtype", "delta_dtype"), CASES)
def test_gradients_equal_fp64_autograd(d_in, d_out, rank, dtype, delta_dtype, with_slots):
    torch.manual_seed(0)
    cu = runs(*RUNS)
    slots = torch.tensor(SLOTS, device=DEVICE) if with_slots else None
    y, x, delta, projection = inputs(sum(RUNS), d_in, d_out, rank, dtype, delta_dtype)
    delta[0] = delta[1]
    grad = torch.randn_like(y)
    leaves = [t.requires_grad_() for t in (y, x, delta, projection)]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    out = cms_delta_rows_reference(doubles[0] * 1, *doubles[1:], slots, cu)
    expected = torch.autograd.grad(out, doubles, grad.double())
    given = torch.autograd.grad(differentiable(y * 1, *leaves[1:], slots, cu), leaves, grad)
    tolerance = max(TOLERANCE[dtype], TOLERANCE[delta_dtype])
    for name, a, b in zip(("y", "x", "delta", "projection"), given, expected, strict=True):
        assert relative(a, b) < tolerance, name
    if with_slots:
        assert not given[2][0].any()
        assert not given[1][1:64].any()


def test_a_delta_alone_may_want_a_gradient():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(5, 8, 12, 4, F32, F32)
    leaf, cu = delta[1:].clone().requires_grad_(), runs(1, 0, 2, 1, 1)
    out = differentiable(y, x, leaf, projection, None, cu)
    assert out is y
    (grad,) = torch.autograd.grad(out.sum(), leaf)
    projected = x @ projection.mT
    assert relative(grad[2], projected[1:3].sum(0).expand(12, 4)) < TOLERANCE[F32]
    assert not grad[1].any()


def test_a_second_derivative_is_refused_not_wrong():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(2, 8, 12, 4, F32, F32)
    leaf = delta[1:3].clone().requires_grad_()
    out = differentiable(y, x, leaf, projection, None, runs(1, 1))
    (grad,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_a_batch_without_slots_reads_its_own_deltas_and_a_pool_may_be_a_slice_of_a_wider_one():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(5, 32, 48, 16, F32, F32)
    layers = torch.stack([torch.full_like(delta, torch.nan), delta], 1)
    slots = torch.arange(1, 6, device=DEVICE)
    expected = decode(y.clone(), x, delta, projection, slots)
    assert torch.equal(decode(y.clone(), x, layers[:, 1], projection, slots), expected)
    assert torch.equal(decode(y.clone(), x, delta[1:], projection, None), expected)
    cu = runs(1, 1, 1, 1, 1)
    expected = ragged(y.clone(), x, delta, projection, slots, cu)
    assert torch.equal(ragged(y.clone(), x, layers[:, 1], projection, slots, cu), expected)
    assert torch.equal(ragged(y.clone(), x, delta[1:], projection, None, cu), expected)


def test_rows_may_be_slices_of_wider_ones():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(6, 32, 48, 16, F32, F32)
    slots = torch.tensor([5, 1, 2, 0, 4, 3], device=DEVICE)
    expected = decode(y.clone(), x, delta, projection, slots)
    wide_y, wide_x = torch.full((6, 100), 7.0, device=DEVICE), torch.randn(6, 64, device=DEVICE)
    wide_y[:, 3:51], wide_x[:, ::2] = y, x
    decode(wide_y[:, 3:51], wide_x[:, ::2], delta, projection, slots)
    assert torch.equal(wide_y[:, 3:51], expected)
    assert (wide_y[:, :3] == 7).all() and (wide_y[:, 51:] == 7).all()
    wide_y[:, 3:51] = y
    ragged(wide_y[:, 3:51], wide_x[:, ::2], delta, projection, slots, runs(1, 1, 1, 1, 1, 1))
    assert relative(wide_y[:, 3:51], expected) < TOLERANCE[F32]
    assert (wide_y[:, :3] == 7).all() and (wide_y[:, 51:] == 7).all()


def test_a_row_gives_the_same_bits_whoever_shares_its_batch():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(6, 64, 80, 16, F32, F32)
    slots = torch.tensor([5, 1, 2, 0, 4, 3], device=DEVICE)
    together = decode(y.clone(), x, delta, projection, slots)
    for row in range(6):
        alone = decode(y[row : row + 1].clone(), x[row : row + 1], delta, projection, slots[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_a_slot_that_does_not_exist_gives_nan():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(4, 16, 24, 4, F32, F32)
    slots = torch.tensor([6, 1, -1, 0], device=DEVICE)
    for out in (
        decode(y.clone(), x, delta, projection, slots),
        ragged(y.clone(), x, delta, projection, slots, runs(1, 1, 1, 1)),
    ):
        assert out[[0, 2]].isnan().all()
        assert out[[1, 3]].isfinite().all()
        assert torch.equal(out[3], y[3])


def test_the_public_op_adds_on_this_device_in_every_form():
    torch.manual_seed(0)
    y, x, delta, projection = inputs(5, 16, 24, 4, F32, F32)
    slots, cu = torch.tensor([3, 0, 2], device=DEVICE), runs(2, 0, 3)
    own = torch.tensor([3, 0, 2, 1, 1], device=DEVICE)
    assert relative(cms_delta(y.clone(), x, delta, projection, own), exact(y, x, delta, projection, own)) < 2e-6
    expected = exact(y, x, delta, projection, slots, cu)
    same = y.clone()
    assert cms_delta(same, x, delta, projection, slots, cu) is same
    assert relative(same, expected) < 2e-6
    full = (delta.double() @ projection.double()).float()
    assert relative(cms_delta(y.clone(), x, full, None, slots, cu), expected) < 2e-6
    leaf = delta.clone().requires_grad_()
    for runs_of, owners in ((cu, slots), (None, own)):
        out = cms_delta(y.clone(), x, leaf, projection, owners, runs_of)
        assert relative(out.detach(), exact(y, x, delta, projection, owners, runs_of)) < 2e-6
        assert torch.autograd.grad(out.sum(), leaf)[0][1:].any()


def good():
    return {
        "y": torch.randn(3, 24),
        "x": torch.randn(3, 16),
        "delta": torch.randn(4, 24, 2),
        "projection": torch.randn(2, 16),
        "slots": torch.tensor([1, 2]),
        "cu_seqlens": torch.tensor([0, 2, 3], dtype=torch.int32),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda a: {"y": a["y"][:2]}, "y's shape is"),
        (lambda a: {"y": a["y"][0]}, r"y's shape is .* \[N, d_out\]"),
        (lambda a: {"y": a["y"].half()}, "y's dtype is torch.float16; it must be x's"),
        (lambda a: {"y": a["y"].mT.contiguous().mT}, "y's strides"),
        (lambda a: {"y": a["y"][:1].expand(3, -1)}, "y's strides"),
        (lambda a: {"y": a["y"].requires_grad_()}, "y is a leaf that requires grad"),
        (lambda a: {"x": a["x"][:0], "y": a["y"][:0]}, "y's shape is .* at least 1"),
        (lambda a: {"x": a["x"].long()}, "x's dtype is torch.int64"),
        (lambda a: {"delta": a["delta"][:, :8]}, "delta's shape is .* d_out, r"),
        (lambda a: {"delta": a["delta"][0]}, "delta's shape is"),
        (lambda a: {"delta": a["delta"].mT.contiguous().mT}, "delta's strides"),
        (lambda a: {"delta": a["delta"].int()}, "delta's dtype"),
        (lambda a: {"projection": a["projection"][:, :8]}, r"projection's shape is .* \[r, d_in\]"),
        (lambda a: {"projection": a["projection"].half()}, "projection's dtype"),
        (lambda a: {"projection": None}, r"delta's shape is .* \[S, d_out, d_in\]"),
        (lambda a: {"slots": torch.tensor([1, 4])}, "slots is from 1 to 4; it must be 0"),
        (lambda a: {"slots": torch.tensor([1, -1])}, "slots is from -1 to 1; it must be 0"),
        (lambda a: {"slots": torch.tensor([1.0, 2.0])}, "slots' dtype"),
        (lambda a: {"slots": torch.tensor([1])}, "slots's shape"),
        (lambda a: {"slots": torch.tensor([1, 0, 2, 0])[::2]}, "slots' strides"),
        (lambda a: {"slots": None}, "number of sequences is 2; .* first axis, 4"),
        (lambda a: {"cu_seqlens": a["cu_seqlens"].long()}, "cu_seqlens's dtype"),
        (lambda a: {"cu_seqlens": a["cu_seqlens"][:1]}, "cu_seqlens's shape"),
        (lambda a: {"cu_seqlens": torch.tensor([0, 2, 4], dtype=torch.int32)}, r"cu_seqlens is \[0, 2, 4\]"),
        (lambda a: {"cu_seqlens": torch.tensor([0, 4, 3], dtype=torch.int32)}, r"never falling"),
        (lambda a: {"cu_seqlens": torch.tensor([1, 2, 3], dtype=torch.int32)}, r"cu_seqlens is \[1, 2, 3\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, message):
    arguments = good()
    with pytest.raises(ValueError, match=message):
        cms_delta(**(arguments | changes(arguments)))
