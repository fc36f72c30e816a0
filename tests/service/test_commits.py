"""What is written of an Adapt, and what is not."""

from __future__ import annotations

import dataclasses

import pytest

from hope_serve.api import AdaptMetrics, AdaptMode, AdaptOptions
from hope_serve.service.commits import LEAST_FALL, skip_reason

IF_IMPROVED = AdaptOptions(mode=AdaptMode.COMMIT_IF_IMPROVED)


def metrics(fall):
    return dataclasses.replace(AdaptMetrics(), nll_before=2.5, nll_after=2.5 - fall)


@pytest.mark.parametrize("fall", [-0.1, 0.0, 1e-7, LEAST_FALL / 2], ids=str)
def test_a_loss_that_falls_by_rounding_alone_has_not_fallen(fall):
    assert "did not fall by 0.0001 nats a token (2.5" in skip_reason(IF_IMPROVED, metrics(fall))


def test_a_loss_that_fell_is_written_and_one_that_rose_too_where_nobody_asked():
    assert skip_reason(IF_IMPROVED, metrics(2 * LEAST_FALL)) == ""
    assert skip_reason(AdaptOptions(), metrics(-0.1)) == ""
