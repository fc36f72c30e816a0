"""The convolution over slots: reference and kernels against a whole sequence in fp64, and their gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hope_kernels.conv_silu import conv_silu
from hope_kernels.conv_silu.reference import conv_silu_reference
from support.titans_data import relative

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
TOLERANCE = {F32: 1e-6, F16: 1e-3, BF16: 8e-3}  # relative, of outputs and gradients
RUNS = (1, 0, 37, 2, 16, 3, 5)
SLOTS = (4, 2, 7, 0, 5, 1, 0)

CASES = [  # d, dtype
    pytest.param(64, F32, id="fp32"),
    pytest.param(1, F32, id="one"),
    pytest.param(150, F16, id="fp16"),
    pytest.param(200, F32, id="200"),
    *(pytest.param(d, t, id=f"{d}-{t}", marks=pytest.mark.cuda) for d, t in ((2048, BF16), (777, BF16), (2048, F32))),
]


def kernels(x, tails, kernel, slots, starts=None):
    from hope_kernels.conv_silu.launch import launch_decode, launch_ragged

    if starts is None:
        return launch_decode(x, tails, kernel, slots)
    return launch_ragged(x, tails, kernel, slots, starts)


def reference(x, tails, kernel, slots, starts=None):
    return conv_silu_reference(x, tails, kernel, slots, starts)


def differentiable(*arguments):
    from hope_kernels.conv_silu.gradient import ConvSilu

    return ConvSilu.apply(*arguments)


BOTH = pytest.mark.parametrize("form", [reference, kernels])


def inputs(rows, width, dtype):
    """x, tails of eight slots inside a wider pool, the null slot NaN, and a kernel."""
    x, pool = (torch.randn(*shape, device=DEVICE).to(dtype) for shape in ((rows, width), (8, 4, width)))
    pool[0] = torch.nan
    return x, pool[:, :3], torch.randn(width, 4, device=DEVICE).to(dtype) / 2


def starts_of(*lengths):
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)


def slots_of(*slots):
    return torch.tensor(slots, dtype=torch.int32, device=DEVICE)


def exact(x, tail, kernel):
    """One sequence [T, d] behind its tail, by torch's own convolution, fp64."""
    joined = torch.cat([tail, x]).double().T[None]
    return F.silu(F.conv1d(joined, kernel.double()[:, None], groups=x.shape[1]))[0].T


def expected_of(x, tails, kernel, slots, lengths):
    """y, and the tails after it."""
    after, parts, start = tails.clone(), [], 0
    for slot, length in zip(slots.tolist(), lengths, strict=True):
        rows, start = x[start : start + length], start + length
        tail = tails[slot] if slot else torch.zeros_like(tails[0])
        parts.append(exact(rows, tail, kernel) if length else rows.double())
        if slot:
            after[slot] = torch.cat([tail, rows])[-3:]
    return torch.cat(parts), after


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@BOTH
@pytest.mark.parametrize(("width", "dtype"), CASES)
def test_one_row_a_sequence_equals_the_whole_sequence(width, dtype, form):
    torch.manual_seed(0)
    slots = slots_of(3, 0, 7, 1, 0, 2)
    x, tails, kernel = inputs(len(slots), width, dtype)
    for _ in range(4):
        x = torch.randn_like(x)
        expected, after = expected_of(x, tails, kernel, slots, [1] * len(slots))
        y = form(x, tails, kernel, slots)
        assert y.dtype is dtype and relative(y, expected) < TOLERANCE[dtype]
        assert torch.equal(tails.nan_to_num(9.0), after.nan_to_num(9.0))


@BOTH
@pytest.mark.parametrize(("width", "dtype"), CASES)
def test_runs_of_rows_equal_the_whole_sequence(width, dtype, form):
    torch.manual_seed(0)
    slots = slots_of(*SLOTS)
    x, tails, kernel = inputs(sum(RUNS), width, dtype)
    for lengths in (RUNS, RUNS[::-1]):
        expected, after = expected_of(x, tails, kernel, slots, lengths)
        y = form(x, tails, kernel, slots, starts_of(*lengths))
        assert y.dtype is dtype and relative(y, expected) < TOLERANCE[dtype]
        assert torch.equal(tails.nan_to_num(9.0), after.nan_to_num(9.0))


@BOTH
def test_pieces_of_any_length_give_what_the_whole_gives(form):
    torch.manual_seed(0)
    x, tails, kernel = inputs(40, 30, F32)
    tails[1] = 0.0
    whole = exact(x, tails[1], kernel)
    pieces, start = [], 0
    for length in (1, 2, 1, 17, 3, 16):
        rows, start = x[start : start + length], start + length
        pieces.append(form(rows, tails, kernel, slots_of(1), starts_of(length)))
    assert relative(torch.cat(pieces), whole) < TOLERANCE[F32]


@pytest.mark.parametrize(("width", "dtype"), CASES)
def test_the_gradient_of_the_rows_equals_fp64_autograd(width, dtype):
    torch.manual_seed(0)
    slots, starts = slots_of(*SLOTS), starts_of(*RUNS)
    x, tails, kernel = inputs(sum(RUNS), width, dtype)
    wide = x.double().requires_grad_()
    expected, after = expected_of(wide, tails.double(), kernel, slots, RUNS)
    grad = torch.randn(sum(RUNS), width, device=DEVICE).to(dtype)
    (of_x,) = torch.autograd.grad(expected, wide, grad.double())
    leaf = x.clone().requires_grad_()
    y = differentiable(leaf, tails, kernel, slots, starts)
    (given,) = torch.autograd.grad(y, leaf, grad)
    assert relative(y.detach(), expected.detach()) < TOLERANCE[dtype]
    assert relative(given, of_x) < TOLERANCE[dtype]
    assert torch.equal(tails.nan_to_num(9.0), after.detach().to(dtype).nan_to_num(9.0))


def test_the_reference_is_differentiable_in_rows_and_kernel():
    torch.manual_seed(0)
    x, tails, kernel = (t.double() for t in inputs(9, 5, F32))
    x.requires_grad_(), kernel.requires_grad_()
    slots, starts = slots_of(3, 0, 1), starts_of(1, 2, 6)
    assert torch.autograd.gradcheck(lambda x, k: conv_silu(x, tails.clone(), k, slots, starts), (x, kernel))
    slots = slots_of(*range(1, 8), 0, 0)
    assert torch.autograd.gradcheck(lambda x, k: conv_silu(x, tails.clone(), k, slots), (x, kernel))


def test_kernels_take_strided_rows():
    torch.manual_seed(0)
    x, tails, kernel = inputs(7, 40, F32)
    slots, starts = slots_of(1, 2), starts_of(3, 4)
    for rows in (x[:, 3:23], x[:, 3:23].T.contiguous().T):
        arguments = (rows, tails[:, :, :20].contiguous(), kernel[:20])
        expected, _ = expected_of(*arguments, slots, (3, 4))
        assert relative(kernels(*arguments, slots, starts), expected) < TOLERANCE[F32]


@pytest.mark.cuda
def test_a_slot_that_does_not_exist_gives_nan_and_changes_nothing():
    x, tails, kernel = inputs(3, 50, F32)
    before = tails.clone()
    for slots, starts in ((slots_of(-1, 8, 0), None), (slots_of(9, 0), starts_of(2, 1))):
        y = conv_silu(x, tails, kernel, slots, starts)
        assert y[:2].isnan().all() and not y[2].isnan().any()
        assert torch.equal(tails.nan_to_num(9.0), before.nan_to_num(9.0))


@pytest.mark.cuda
def test_a_captured_graph_moves_the_tails():
    torch.manual_seed(0)
    slots = slots_of(3, 0, 7, 1)
    x, tails, kernel = inputs(4, 2048, BF16)
    conv_silu(x, tails.clone(), kernel, slots)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = conv_silu(x, tails, kernel, slots)
    for _ in range(5):
        x.normal_()
        expected, after = expected_of(x, tails, kernel, slots, [1] * 4)
        graph.replay()
        assert relative(y, expected) < TOLERANCE[BF16]
        assert torch.equal(tails.nan_to_num(9.0), after.nan_to_num(9.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(4)}, "x's shape"),
        ({"kernel": torch.zeros(5, 3)}, "kernel's shape"),
        ({"tails": torch.zeros(3, 4, 5)}, "tails's shape"),
        ({"tails": torch.zeros(3, 5, 3).mT}, "tails's strides"),
        ({"slots": torch.tensor([1, 3])}, "slots"),
        ({"slots": torch.tensor([1, 1])}, "slots"),
        ({"starts": torch.tensor([0, 1, 3], dtype=torch.int32)}, "starts"),
        ({"starts": torch.tensor([0, 1, 4])}, "starts's dtype"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {
        "x": torch.zeros(4, 5),
        "tails": torch.zeros(3, 3, 5),
        "kernel": torch.zeros(5, 4),
        "slots": torch.tensor([1, 2]),
        "starts": torch.tensor([0, 1, 4], dtype=torch.int32),
    }
    with pytest.raises(ValueError, match=named):
        conv_silu(**given | change)
