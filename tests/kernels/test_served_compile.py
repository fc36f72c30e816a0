"""Every kernel between a served model's products compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import compiled


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("op", "count"), [("residual_norm", 8), ("conv_silu", 12), ("cms_delta_projected", 20)])
def test_no_kernel_spills(op, count):
    assert len(compiled("served_variants", op)) == count
