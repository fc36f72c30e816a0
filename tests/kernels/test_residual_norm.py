"""The residual norm's kernel against fp64."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.residual_norm import residual_norm
from hope_kernels.residual_norm.reference import residual_norm_reference
from support.titans_data import relative

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
TOLERANCE = {F32: 5e-7, F16: 5e-4, BF16: 4e-3}  # relative, by the dtype of the result
EPS = 1e-6

CASES = [  # N, d, h, x, y
    pytest.param(3, 64, F32, F32, F32, id="fp32"),
    pytest.param(1, 1, F32, F32, F32, id="one"),
    pytest.param(5, 100, F32, F16, F16, id="fp32-stream"),
    pytest.param(2, 2000, F16, F16, F16, id="fp16"),
    pytest.param(7, 333, F16, F32, F32, id="fp16-stream"),
    *(
        pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.cuda)
        for case in (
            (256, 2048, F32, BF16, BF16),
            (1, 2048, BF16, BF16, BF16),
            (63, 8192, F32, F32, F32),
            (2000, 1000, F32, F16, F16),
        )
    ),
]


def kernel(h, x, scale, dtype):
    from hope_kernels.residual_norm.launch import launch_residual_norm

    return launch_residual_norm(h, x, scale, EPS, dtype)


def reference(h, x, scale, dtype):
    return residual_norm_reference(h, x, scale, EPS, dtype)


BOTH = pytest.mark.parametrize("form", [reference, kernel])


def inputs(rows, width, h_dtype, x_dtype):
    h, x = (torch.randn(rows, width, device=DEVICE).to(dtype) for dtype in (h_dtype, x_dtype))
    return h * 3, x, 1 + 0.1 * torch.randn(width, device=DEVICE)


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@BOTH
@pytest.mark.parametrize(("rows", "width", "h_dtype", "x_dtype", "y_dtype"), CASES)
def test_sum_and_norm_equal_fp64(rows, width, h_dtype, x_dtype, y_dtype, form):
    torch.manual_seed(0)
    h, x, scale = inputs(rows, width, h_dtype, x_dtype)
    before = h.clone()
    total, y = form(h, x, scale, y_dtype)
    assert total.dtype is h_dtype and y.dtype is y_dtype
    assert torch.equal(h, before)
    assert torch.equal(total, (h.float() + x.float()).to(h_dtype))
    expected = residual_norm_reference(total.double(), None, scale.double(), EPS, torch.float64)[1]
    assert relative(y, expected) < TOLERANCE[y_dtype]


@BOTH
@pytest.mark.parametrize(("rows", "width", "h_dtype", "x_dtype", "y_dtype"), CASES)
def test_the_norm_alone_leaves_the_stream_as_it_is(rows, width, h_dtype, x_dtype, y_dtype, form):
    torch.manual_seed(0)
    h, _, scale = inputs(rows, width, h_dtype, x_dtype)
    total, y = form(h, None, scale, y_dtype)
    assert total is h
    expected = residual_norm_reference(h.double(), None, scale.double(), EPS, torch.float64)[1]
    assert relative(y, expected) < TOLERANCE[y_dtype]


def test_the_kernel_takes_strided_rows():
    torch.manual_seed(0)
    h, x, scale = inputs(6, 40, F32, F32)
    expected = reference(h[:, :20], x[:, 20:], scale[::2], F32)
    for wide in (h[:, :20], h[:, :20].T.contiguous().T):
        total, y = kernel(wide, x[:, 20:], scale[::2], F32)
        torch.testing.assert_close(total, expected[0])
        torch.testing.assert_close(y, expected[1])


@BOTH
def test_rows_of_zeros_stay_zeros(form):
    zeros = torch.zeros(2, 30, device=DEVICE)
    assert not form(zeros, zeros, torch.ones(30, device=DEVICE), F16)[1].any()


def differentiable(*arguments):
    from hope_kernels.residual_norm.gradient import ResidualNorm

    return ResidualNorm.apply(*arguments)


@pytest.mark.parametrize(("rows", "width", "h_dtype", "x_dtype", "y_dtype"), CASES)
def test_the_gradient_of_the_kernels_equals_fp64_autograd(rows, width, h_dtype, x_dtype, y_dtype):
    torch.manual_seed(0)
    h, x, scale = inputs(rows, width, h_dtype, x_dtype)
    leaves = h.requires_grad_(), x.requires_grad_()
    given = differentiable(*leaves, scale, EPS, y_dtype)
    by = [torch.randn_like(t) for t in given]
    wide = [given[0].detach().double().requires_grad_(), torch.zeros_like(x, dtype=torch.float64)]
    total, y = residual_norm_reference(*wide, scale.double(), EPS, torch.float64)
    (expected,) = torch.autograd.grad((total, y), wide[0], [g.double() for g in by])
    of_h, of_x = torch.autograd.grad(given, leaves, by)
    assert of_h.dtype is h_dtype and of_x.dtype is x_dtype
    for given, dtype in ((of_h, h_dtype), (of_x, x_dtype)):  # a difference is taken, which forwards none is
        assert relative(given, expected) < 4 * TOLERANCE[dtype]


def test_either_result_may_be_left_unused_and_either_input_be_a_constant():
    torch.manual_seed(0)
    h, x, scale = inputs(4, 48, F32, F16)
    for used in ((0,), (1,)):
        expected = []
        for form in (reference, lambda h, x, s, to: differentiable(h, x, s, EPS, to)):
            leaf = x.clone().requires_grad_()
            sum(form(h, leaf, scale, F32)[i].square().sum() for i in used).backward()
            expected.append(leaf.grad)
        assert relative(expected[1], expected[0]) < TOLERANCE[F16]
    leaf = h.clone().requires_grad_()
    differentiable(leaf, x, scale, EPS, F32)[1].sum().backward()
    other = h.clone().requires_grad_()
    reference(other, x, scale, F32)[1].sum().backward()
    assert relative(leaf.grad, other.grad) < 1e-5


@pytest.mark.cuda
def test_the_op_is_differentiable_on_its_kernels():
    torch.manual_seed(0)
    h, x, scale = inputs(33, 2048, F32, BF16)
    total, y = residual_norm(h, x.requires_grad_(), scale, EPS, BF16)
    assert total.grad_fn is y.grad_fn and "ResidualNorm" in type(y.grad_fn).__name__
    (given,) = torch.autograd.grad((total, y), x, [torch.ones_like(t) for t in (total, y)])
    leaf = x.detach().clone().requires_grad_()
    both = reference(h, leaf, scale, BF16)
    (expected,) = torch.autograd.grad(both, leaf, [torch.ones_like(t) for t in both])
    assert relative(given, expected) < TOLERANCE[BF16]


def test_gradients_pass_through():
    torch.manual_seed(0)
    h, x, scale = (t.double().requires_grad_() for t in inputs(3, 10, F32, F32))
    assert torch.autograd.gradcheck(lambda *t: residual_norm(*t, EPS), (h, x, scale))


@pytest.mark.cuda
def test_a_captured_graph_follows_its_inputs():
    torch.manual_seed(0)
    h, x, scale = inputs(9, 2048, F32, BF16)
    residual_norm(h, x, scale, EPS, BF16)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total, y = residual_norm(h, x, scale, EPS, BF16)
    h.normal_()
    graph.replay()
    expected = residual_norm_reference((h + x).double(), None, scale.double(), EPS, torch.float64)
    assert relative(total, expected[0]) < TOLERANCE[F32]
    assert relative(y, expected[1]) < TOLERANCE[BF16]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"h": torch.zeros(3)}, "h's shape"),
        ({"h": torch.zeros(2, 3, dtype=torch.int32)}, "h's dtype"),
        ({"x": torch.zeros(1, 3)}, "x's shape"),
        ({"scale": torch.zeros(4)}, "scale's shape"),
        ({"dtype": torch.int8}, "dtype"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    given = {"h": torch.zeros(2, 3), "x": torch.zeros(2, 3), "scale": torch.ones(3), "eps": EPS} | change
    with pytest.raises(ValueError, match=named):
        residual_norm(**given)


@pytest.mark.parametrize("width", [5, 512, 1000])
def test_few_rows_on_a_cpu_are_normed_as_many_are_and_each_the_same_alone(width: int) -> None:
    h, x, scale = torch.randn(16, width), torch.randn(16, width), torch.rand(width)
    h[3], x[3] = 0.0, 0.0
    total, y = residual_norm(h, x, scale, EPS)
    expected = residual_norm_reference((h + x).double(), None, scale.double(), EPS, torch.float64)[1]
    assert torch.equal(total, h + x)
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-6)
    for row in range(16):
        assert torch.equal(residual_norm(h[row : row + 1], x[row : row + 1], scale, EPS)[1][0], y[row])
