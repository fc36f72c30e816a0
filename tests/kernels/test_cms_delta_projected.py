"""The delta over rows that come with their projections, against fp64, on slots of a pool."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hope_kernels.cms_delta import cms_delta_projected
from hope_kernels.cms_delta.projected_reference import cms_delta_projected_reference
from support.titans_data import relative

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# Relative error of outputs and gradients against fp64 on the same rounded inputs, by the coarsest dtype.
TOLERANCE = {F32: 2e-6, F16: 1e-3, BF16: 8e-3}
RUNS = (1, 0, 63, 2, 40, 0)  # the rows of six sequences
SLOTS = (4, 2, 0, 4, 5, 1)  # one has no memory, two share one
FORGETFUL = 5  # the slot whose memory is not to be read where there are flags

CASES = [  # d_out, r, rows, pool
    pytest.param(96, 16, F32, F32, id="fp32"),
    pytest.param(50, 5, F32, F32, id="odd"),
    pytest.param(130, 16, F16, F16, id="fp16"),
    pytest.param(33, 20, F16, F32, id="fp16-rows"),
    pytest.param(300, 32, F32, F16, id="fp16-pool"),
    *(
        pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.cuda)
        for case in (
            (3072, 16, BF16, BF16),
            (2048, 32, BF16, BF16),
            (2048, 16, BF16, F32),
            (2048, 64, F32, F32),
            (777, 1, BF16, BF16),
        )
    ),
]
EVERY = pytest.mark.parametrize(("d_out", "rank", "dtype", "pool"), CASES)


def inputs(rows, d_out, rank, dtype, pool):
    """Rows and a pool of seven slots inside a wider one; slots whose memory must not be read are NaN."""
    y_and_p = torch.randn(rows, d_out + rank, device=DEVICE).to(dtype)
    wide = torch.randn(7, 2, d_out, rank, device=DEVICE) / rank**0.5
    wide[0] = wide[:, 0] = torch.nan
    return y_and_p, wide.to(pool)[:, 1]


def runs(*lengths):
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)


def flags(delta):
    remembers = torch.ones(len(delta), dtype=torch.uint8, device=DEVICE)
    remembers[FORGETFUL], delta[FORGETFUL] = 0, torch.nan
    return remembers


def kernels(y_and_p, delta, slots, starts=None, activation="none", remembers=None):
    from hope_kernels.cms_delta.projected_launch import launch_projected_decode, launch_projected_ragged

    if starts is None:
        return launch_projected_decode(y_and_p, delta, slots, activation, remembers)
    return launch_projected_ragged(y_and_p, delta, slots, starts, activation, remembers)


def expected_of(y_and_p, delta, slots, lengths, activation, remembers):
    """Row by row, by the definition, fp64."""
    d_out, rows, row = delta.shape[1], [], 0
    for slot, length in zip(slots.tolist(), lengths, strict=True):
        for given in y_and_p[row : row + length].double():
            y = given[:d_out]
            if slot and (remembers is None or remembers[slot]):
                y = y + delta[slot].double() @ given[d_out:]
            rows.append(F.silu(y) if activation == "silu" else y)
        row += length
    return torch.stack(rows)


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@pytest.mark.parametrize("form", [cms_delta_projected_reference, kernels])
@pytest.mark.parametrize(("activation", "flagged"), [("none", False), ("silu", True)])
@EVERY
def test_one_row_a_sequence_equals_fp64(d_out, rank, dtype, pool, activation, flagged, form):
    torch.manual_seed(0)
    slots = torch.tensor([3, 0, 5, 1, 3, 0, 2], dtype=torch.int32, device=DEVICE)
    y_and_p, delta = inputs(len(slots), d_out, rank, dtype, pool)
    remembers = flags(delta) if flagged else None
    before = y_and_p.clone()
    y = form(y_and_p, delta, slots, None, activation, remembers)
    assert y.dtype is dtype and y.is_contiguous()
    assert relative(y, expected_of(y_and_p, delta, slots, [1] * 7, activation, remembers)) < TOLERANCE[dtype]
    assert torch.equal(y_and_p, before)


@pytest.mark.parametrize("form", [cms_delta_projected_reference, kernels])
@pytest.mark.parametrize(("activation", "flagged"), [("none", True), ("silu", False)])
@EVERY
def test_runs_of_rows_equal_fp64(d_out, rank, dtype, pool, activation, flagged, form):
    torch.manual_seed(0)
    slots = torch.tensor(SLOTS, dtype=torch.int32, device=DEVICE)
    y_and_p, delta = inputs(sum(RUNS), d_out, rank, dtype, pool)
    remembers = flags(delta) if flagged else None
    y = form(y_and_p, delta, slots, runs(*RUNS), activation, remembers)
    assert relative(y, expected_of(y_and_p, delta, slots, RUNS, activation, remembers)) < TOLERANCE[dtype]


@EVERY
def test_gradients_equal_fp64_autograd(d_out, rank, dtype, pool):
    from hope_kernels.cms_delta.projected_gradient import CmsDeltaProjected

    torch.manual_seed(0)
    slots = torch.tensor(SLOTS, dtype=torch.int32, device=DEVICE)
    y_and_p, delta = inputs(sum(RUNS), d_out, rank, dtype, pool)
    delta = torch.where(delta.isnan(), 0.0, delta)
    wide = [t.double().requires_grad_() for t in (y_and_p, delta)]
    grad = torch.randn(sum(RUNS), d_out, device=DEVICE).to(dtype)
    exact = torch.autograd.grad(expected_of(*wide, slots, RUNS, "none", None), wide, grad.double())
    leaves = [t.clone().requires_grad_() for t in (y_and_p, delta)]
    given = torch.autograd.grad(CmsDeltaProjected.apply(*leaves, slots, runs(*RUNS)), leaves, grad)
    for ours, theirs, tensor in zip(given, exact, leaves, strict=True):
        assert ours.dtype is tensor.dtype
        assert relative(ours, theirs) < max(TOLERANCE[dtype], TOLERANCE[tensor.dtype])


def test_the_reference_is_differentiable():
    torch.manual_seed(0)
    slots = torch.tensor(SLOTS)
    y_and_p, delta = (t.double() for t in inputs(12, 5, 3, F32, F32))
    delta = delta.nan_to_num(0.5).cpu()
    leaves = [t.cpu().requires_grad_() for t in (y_and_p, delta)]
    starts = torch.tensor([0, 1, 1, 5, 7, 12, 12], dtype=torch.int32)
    remembers = torch.tensor([1, 1, 1, 1, 1, 0, 1], dtype=torch.bool)
    for flagged in (None, remembers):
        assert torch.autograd.gradcheck(
            lambda a, b, f=flagged: cms_delta_projected(a, b, slots, starts, activation="silu", remembers=f), leaves
        )


@pytest.mark.cuda
@pytest.mark.parametrize("starts", [None, (2, 1, 4)])
def test_gradients_pass_through_activation_and_flags(starts):
    torch.manual_seed(0)
    lengths = starts or (1, 1, 1)
    slots, starts = torch.tensor([5, 0, 3], dtype=torch.int32, device=DEVICE), starts and runs(*starts)
    y_and_p, delta = inputs(sum(lengths), 100, 16, F32, F32)
    remembers = flags(delta)
    delta = delta.nan_to_num(0.5)
    leaves, wide = ([t.to(kind).requires_grad_() for t in (y_and_p, delta)] for kind in (F32, torch.float64))
    grad = torch.randn(sum(lengths), 100, device=DEVICE)
    y = cms_delta_projected(*leaves, slots, starts, activation="silu", remembers=remembers)
    exact = torch.autograd.grad(expected_of(*wide, slots, lengths, "silu", remembers), wide, grad.double())
    for ours, theirs in zip(torch.autograd.grad(y, leaves, grad), exact, strict=True):
        assert relative(ours, theirs) < TOLERANCE[F32]


@pytest.mark.cuda
def test_a_slot_that_does_not_exist_gives_nan():
    y_and_p, delta = inputs(3, 40, 16, F32, F32)
    for slots, starts in (((7, 0, -1), None), ((9, 2, -2), runs(1, 1, 1))):
        y = cms_delta_projected(y_and_p, delta, torch.tensor(slots, device=DEVICE), starts)
        assert y[[0, 2]].isnan().all() and not y[1].isnan().any()


@pytest.mark.cuda
def test_a_captured_graph_reads_what_the_product_before_it_makes():
    torch.manual_seed(0)
    slots = torch.tensor([4, 0, 2, 1] * 16, device=DEVICE)
    _, delta = inputs(1, 2048, 16, BF16, BF16)
    x, stacked = (torch.randn(n, 512, device=DEVICE).to(BF16) for n in (64, 2048 + 16))
    cms_delta_projected(F.linear(x, stacked), delta, slots, activation="silu")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = cms_delta_projected(F.linear(x, stacked), delta, slots, activation="silu")
    for _ in range(3):
        x.normal_()
        graph.replay()
        expected = expected_of(F.linear(x, stacked), delta, slots, [1] * 64, "silu", None)
        assert relative(y, expected) < TOLERANCE[BF16]


def test_strided_rows_are_taken():
    torch.manual_seed(0)
    y_and_p, delta = inputs(3, 20, 4, F32, F32)
    slots = torch.tensor([1, 2, 0], device=DEVICE)
    expected = cms_delta_projected(y_and_p, delta, slots)
    spread = torch.zeros(3, 50, device=DEVICE)
    spread[:, 7:31] = y_and_p
    torch.testing.assert_close(kernels(spread[:, 7:31], delta, slots), expected)
    torch.testing.assert_close(cms_delta_projected(y_and_p.T.contiguous().T, delta, slots), expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"y_and_p": torch.zeros(3, 9)}, "y_and_p's shape"),
        ({"b_pool": torch.zeros(4, 8)}, "b_pool's shape"),
        ({"b_pool": torch.zeros(4, 2, 8).mT}, "b_pool's strides"),
        ({"slots": torch.tensor([1, 2])}, "slots"),
        ({"slots": torch.tensor([1, 2, 4])}, "slots"),
        ({"starts": torch.tensor([0, 1, 2], dtype=torch.int32)}, "starts"),
        ({"activation": "gelu"}, "activation"),
        ({"remembers": torch.ones(3, dtype=torch.uint8)}, "remembers's shape"),
        ({"remembers": torch.ones(4)}, "remembers's dtype"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {"y_and_p": torch.zeros(3, 10), "b_pool": torch.zeros(4, 8, 2), "slots": torch.tensor([1, 2, 0])}
    with pytest.raises(ValueError, match=named):
        cms_delta_projected(**given | change)
