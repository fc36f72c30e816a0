"""Steps of exploding gradients are left out, unless all are such."""

from __future__ import annotations

import math

import pytest

from hope_serve.training.parts.steadiness import PATIENCE, RATIO, Steadiness


def test_an_outlier_is_left_out_and_does_not_change_what_is_usual():
    steadiness = Steadiness()
    assert all(steadiness.takes(norm) for norm in (1.0, 0.5, 2.0, 0.7))
    before = steadiness.usual
    assert not steadiness.takes(RATIO * before * 1.01)
    assert steadiness.takes(RATIO * before * 0.99)
    assert steadiness.left_out == 1


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_is_never_taken(norm):
    steadiness = Steadiness()
    assert not any(steadiness.takes(norm) for _ in range(2 * PATIENCE))
    assert steadiness.takes(1.0)


def test_when_all_are_outliers_what_is_usual_has_changed():
    steadiness = Steadiness()
    assert steadiness.takes(1.0)
    taken = [steadiness.takes(100.0) for _ in range(PATIENCE + 1)]
    assert taken == [False] * PATIENCE + [True]
    assert steadiness.takes(100.0)
