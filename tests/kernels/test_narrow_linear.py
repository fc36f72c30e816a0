"""Weights of 16 bits on a CPU: fp32's own numbers, none of them rounded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hope_kernels.few_rows_linear.narrow import ENGINES, MAX_ROWS, few_rows_narrow, packed

pytestmark = pytest.mark.skipif(
    torch.backends.quantized.engine not in ENGINES, reason="this machine's torch has no product of 16-bit weights"
)


def exact(rows, columns):
    """A matrix whose numbers are all fp16's."""
    return (0.05 * torch.randn(rows, columns)).half().float()


@pytest.mark.parametrize(("height", "width"), [(1056, 512), (7, 33), (1, 1), (130, 64)])
def test_a_product_is_as_near_the_truth_as_fp32s(height, width):
    torch.manual_seed(0)
    weight, x = exact(height, width), torch.randn(5, width)
    truth = F.linear(x.double(), weight.double())
    scale = F.linear(x.double().abs(), weight.double().abs())
    got = few_rows_narrow(x, packed(weight))
    assert got.dtype is torch.float32
    assert ((got - truth).abs() <= 2e-6 * scale).all()


def test_rows_alone_are_the_same_to_the_bit_each_time_and_near_it_beside_others():
    """What is summed in which order beside others depends on the processor."""
    torch.manual_seed(0)
    matrix, x = exact(1056, 512), torch.randn(MAX_ROWS, 512)
    weight, scale = packed(matrix), F.linear(x.abs(), matrix.abs())
    together = few_rows_narrow(x, weight)
    for count in (1, 2, 5, 7, 15):
        for first in range(MAX_ROWS - count + 1):
            rows = slice(first, first + count)
            got = few_rows_narrow(x[rows].clone(), weight)
            assert torch.equal(got, few_rows_narrow(x[rows], weight))
            assert ((got - together[rows]).abs() <= 1e-6 * scale[rows]).all()


def test_no_number_is_ever_rounded():
    """A matrix with one number that fp16 does not have, because it is too fine, too large or too small, stays wide."""
    assert packed(exact(4, 8)) is not None
    for number in (1 / 3, 1e5, 1e-9, float("nan")):
        weight = exact(4, 8)
        weight[2, 3] = number
        assert packed(weight) is None
    assert packed(exact(4, 8).double()) is None
