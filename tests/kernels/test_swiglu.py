"""The gated unit: reference and kernel against fp64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hope_kernels.swiglu import swiglu
from hope_kernels.swiglu.reference import swiglu_reference
from support.attention_data import BF16, DEVICE, F16, F32
from support.titans_data import relative

TOLERANCE = {F32: 2e-6, F16: 5e-4, BF16: 4e-3}  # relative
CASES = [  # N, F, dtype
    pytest.param(3, 64, F32, id="fp32"),
    pytest.param(1, 1, F32, id="one"),
    pytest.param(5, 1300, F16, id="fp16"),
    *(
        pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.cuda)
        for case in ((256, 1536, BF16), (1, 8192, BF16), (2000, 777, F16), (63, 14336, F32))
    ),
]


def kernel(*given):
    from hope_kernels.swiglu.launch import launch_swiglu

    return launch_swiglu(*given)


BOTH = pytest.mark.parametrize("form", [swiglu_reference, kernel])


@pytest.fixture(autouse=True)
def empties_hold_nan(monkeypatch):
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))


@BOTH
@pytest.mark.parametrize(("rows", "width", "dtype"), CASES)
def test_the_gate_lets_through_as_in_fp64(rows, width, dtype, form):
    torch.manual_seed(0)
    gate_up = torch.randn(rows, 2 * width + 5, device=DEVICE).to(dtype)[:, 3:-2] * 3
    gate, up = gate_up.double().chunk(2, -1)
    y = form(gate_up)
    assert y.dtype is dtype and y.shape == (rows, width)
    assert relative(y, F.silu(gate) * up) < TOLERANCE[dtype]


@pytest.mark.parametrize(("rows", "width", "dtype"), CASES)
def test_the_gradient_of_the_kernels_equals_fp64_autograd(rows, width, dtype):
    from hope_kernels.swiglu.gradient import Swiglu

    torch.manual_seed(0)
    gate_up, by = (torch.randn(rows, n, device=DEVICE).to(dtype) for n in (2 * width + 5, width))
    gate_up = gate_up[:, 3:-2]
    wide = gate_up.double().requires_grad_()
    (expected,) = torch.autograd.grad(swiglu_reference(wide), wide, by.double())
    leaf = gate_up.detach().requires_grad_()
    (given,) = torch.autograd.grad(Swiglu.apply(leaf), leaf, by)
    assert given.dtype is dtype and relative(given, expected) < TOLERANCE[dtype]


def test_gradients_pass_through():
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(swiglu, torch.randn(3, 8, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(
    ("gate_up", "named"),
    [
        (torch.zeros(3), "gate_up's shape"),
        (torch.zeros(2, 3), "gate_up's shape"),
        (torch.zeros(2, 4, dtype=torch.int8), "gate_up's dtype"),
    ],
)
def test_what_does_not_fit_is_named(gate_up, named):
    with pytest.raises(ValueError, match=named):
        swiglu(gate_up)
