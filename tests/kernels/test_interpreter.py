"""Triton's interpreter, which these tests hasten, still gives what it gave."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is interpreted where there is a GPU")


@pytest.mark.parametrize("axis", [0, 1])
def test_a_reduction_of_ones_own_goes_along_its_axis_in_order(axis):
    """By a function that is neither commutative nor associative, so that any other order gives another number."""
    from support.reduce_kernel import reduce_kernel

    x = torch.randint(-9, 9, (4, 8)).float()
    first, second = torch.empty(2, 32 // x.shape[axis])
    reduce_kernel[(1,)](x, first, second, ROWS=4, COLUMNS=8, AXIS=axis)
    rows = x.unbind(axis)
    total = rows[0]
    for row in rows[1:]:
        total = 2 * total + row
    assert torch.equal(first, total)
    assert torch.equal(second, x.sum(axis))
