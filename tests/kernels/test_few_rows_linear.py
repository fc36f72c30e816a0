"""The product of a few rows against fp64, and what a row's result may depend on."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.few_rows_linear import few_rows_linear
from hope_kernels.few_rows_linear.op import MAX_ROWS, MAX_WIDTH, runs_on_kernel
from hope_kernels.few_rows_linear.reference import few_rows_linear_reference
from support.titans_data import relative

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
TOLERANCE = {F32: 2e-5, F16: 5e-4, BF16: 4e-3}  # relative, by the dtype of the result; matrix units cut sums off
FULL = 5e-6  # of fp32 throughout, which takes no matrix unit

SERVED = ((4096, 2048), (2048, 2048), (3088, 2048), (2064, 3072), (3072, 2048), (2048, 3072), (32000, 2048))
LARGE = (
    *((1, *shape, BF16, BF16) for shape in SERVED),
    *((2, *shape, F16, F16) for shape in SERVED),
    *((9, *shape, BF16, F32) for shape in SERVED),
    *((16, *shape, BF16, BF16) for shape in SERVED),
    (1, 2048, 8192, F32, F32),
    (16, 2048, 2048, F32, F32),
    (16, 77, 8192, F16, F32),
    (1, 5, 8190, BF16, F32),
)
CASES = [  # N, M, K, dtype, out_dtype; the interpreter multiplies no tiles of bf16
    pytest.param(1, 64, 128, F16, F16, id="alone"),
    pytest.param(1, 1, 1, F32, F32, id="one"),
    pytest.param(1, 37, 100, BF16, F32, id="alone-uneven"),
    pytest.param(3, 20, 96, F32, F32, id="fp32"),
    pytest.param(2, 40, 512, F16, F32, id="two-to-fp32"),
    pytest.param(16, 17, 300, F16, F16, id="sixteen-uneven"),
    pytest.param(5, 3, 7, F16, F16, id="narrow"),
    *(pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.cuda) for case in LARGE),
]
SHAPES = [(24, 300), *(pytest.param(*shape, marks=pytest.mark.cuda) for shape in SERVED)]


def kernel(x, weight, dtype):
    from hope_kernels.few_rows_linear.launch import launch_few_rows_linear

    return launch_few_rows_linear(x, weight, dtype)


def reference(x, weight, dtype):
    return few_rows_linear_reference(x, weight, dtype)


BOTH = pytest.mark.parametrize("form", [reference, kernel])


def inputs(rows, height, width, dtype):
    x, weight = torch.randn(rows, width, device=DEVICE), torch.randn(height, width, device=DEVICE) / width**0.5
    return x.to(dtype), weight.to(dtype)


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@BOTH
@pytest.mark.parametrize(("rows", "height", "width", "dtype", "out_dtype"), CASES)
def test_products_equal_fp64(rows, height, width, dtype, out_dtype, form):
    torch.manual_seed(0)
    x, weight = inputs(rows, height, width, dtype)
    y = form(x, weight, out_dtype)
    assert y.dtype is out_dtype and y.shape == (rows, height) and y.is_contiguous()
    # On a CPU torch rounds to 16 bits before it widens.
    tolerance = FULL if dtype is F32 else TOLERANCE[dtype if form is reference and not CUDA else out_dtype]
    assert relative(y, x.double() @ weight.double().mT) < tolerance


@pytest.mark.parametrize("dtype", [F32, F16])
def test_the_kernel_takes_rows_with_gaps(dtype):
    torch.manual_seed(0)
    x, weight = inputs(4, 24, 64, dtype)
    wide = torch.cat([x, torch.full_like(x, torch.nan)], 1)
    for count in (1, 4):
        assert torch.equal(kernel(wide[:count, :64], weight, dtype), kernel(x[:count], weight, dtype))


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("dtype", [F32, F16])
def test_a_row_is_the_same_beside_any_others(dtype, height, width):
    torch.manual_seed(0)
    x, weight = inputs(MAX_ROWS, height, width, dtype)
    together = kernel(x, weight, dtype)
    for count in (2, 3, 8, 15):
        assert torch.equal(kernel(x[:count], weight, dtype), together[:count])
        assert torch.equal(kernel(x[-count:].flip(0), weight, dtype).flip(0), together[-count:])


def test_a_row_of_nan_stays_in_its_row():
    torch.manual_seed(0)
    x, weight = inputs(3, 20, 64, F16)
    x[1] = torch.nan
    y = kernel(x, weight, F16)
    assert y[1].isnan().all() and not y[::2].isnan().any()


@pytest.mark.parametrize("blocks", ["bytes", "rows", "steps"])
@pytest.mark.parametrize("count", [1, 6])
def test_every_table_gives_the_product(blocks, count):
    from hope_kernels.few_rows_linear.launch import DotBlocks, SumBlocks, launch_few_rows_linear

    given = {
        "bytes": SumBlocks(tile_bytes=1024, warps=2),
        "rows": DotBlocks(rows=32, deep=32, warps=4, stages=3, prefetch_bytes=1024),
        "steps": DotBlocks(rows=16, deep=64, warps=2, stages=1, prefetch_bytes=0),
    }
    torch.manual_seed(0)
    x, weight = inputs(count, 70, 200, F16)
    y = launch_few_rows_linear(x, weight, F32, given[blocks])
    assert relative(y, x.double() @ weight.double().mT) < TOLERANCE[F32]


def test_the_kernel_is_for_few_plain_rows_that_nobody_differentiates():
    x, weight = inputs(2, 8, 16, F16)
    assert runs_on_kernel(x, weight, F16) and runs_on_kernel(x, weight, F32)
    assert not runs_on_kernel(x, weight, BF16)
    assert not runs_on_kernel(x.double(), weight.double(), torch.float64)
    assert not runs_on_kernel(x[:0], weight, F16)
    assert not runs_on_kernel(x.new_zeros(MAX_ROWS + 1, 16), weight, F16)
    assert not runs_on_kernel(x.new_zeros(1, MAX_WIDTH + 1), x.new_zeros(1, MAX_WIDTH + 1), F16)
    assert not runs_on_kernel(x.mT.contiguous().mT, weight, F16)
    assert not runs_on_kernel(x, weight.mT.contiguous().mT, F16)
    weight.requires_grad_()
    assert not runs_on_kernel(x, weight, F16)
    with torch.no_grad():
        assert runs_on_kernel(x, weight, F16)


@pytest.mark.parametrize("rows", [0, 1, MAX_ROWS, MAX_ROWS + 1])
@pytest.mark.parametrize("out_dtype", [None, F32])
def test_the_op_takes_any_number_of_rows(rows, out_dtype):
    torch.manual_seed(0)
    x, weight = inputs(rows, 24, 64, F16)
    y = few_rows_linear(x, weight, out_dtype)
    assert y.dtype is (out_dtype or F16) and y.shape == (rows, 24)
    torch.testing.assert_close(y.float(), x.float() @ weight.float().mT, atol=2e-3, rtol=2e-3)


def test_gradients_pass_through():
    torch.manual_seed(0)
    x, weight = (t.double().requires_grad_() for t in inputs(3, 5, 10, F32))
    assert torch.autograd.gradcheck(few_rows_linear, (x, weight))


@pytest.mark.cuda
@pytest.mark.parametrize("count", [1, 2, 16])
def test_a_captured_chain_follows_its_inputs(count):
    """Every product starts while the one that makes its rows still runs."""
    torch.manual_seed(0)
    x, _ = inputs(count, 1, 2048, BF16)
    weights = [inputs(1, 2048, 2048, BF16)[1] for _ in range(6)]

    def chain():
        y = x
        for weight in weights:
            y = few_rows_linear(y, weight)
        return y

    chain()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = chain()
    for _ in range(20):
        x.normal_()
        graph.replay()
        expected = x.double()
        for weight in weights:
            expected = (expected @ weight.double().mT).to(BF16).double()
        assert relative(y, expected) < 6 * TOLERANCE[BF16]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(3)}, "x's shape"),
        ({"weight": torch.zeros(3)}, "weight's shape"),
        ({"weight": torch.zeros(4, 2)}, "weight's shape"),
        ({"x": torch.zeros(2, 3, dtype=torch.int32)}, "x's dtype"),
        ({"weight": torch.zeros(4, 3, dtype=F16)}, "weight's dtype"),
        ({"out_dtype": torch.int8}, "out_dtype"),
    ],
)
def test_what_does_not_fit_is_named(change, named):
    with pytest.raises(ValueError, match=named):
        few_rows_linear(**{"x": torch.zeros(2, 3), "weight": torch.ones(4, 3)} | change)
