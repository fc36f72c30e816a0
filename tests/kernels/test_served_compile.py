"""Every kernel between a served model's products compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled, counted

SOME_KERNELS = {"residual_norm": 4, "conv_silu": 4, "cms_delta_projected": 5, "few_rows_linear": 6}
ALL_KERNELS = {"residual_norm": 16, "conv_silu": 12, "cms_delta_projected": 20, "few_rows_linear": 12}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_kernel_spills(extent):
    assert counted(compiled("served_variants", extent)) == (ALL_KERNELS if extent == ALL else SOME_KERNELS)


@pytest.mark.timeout(300)
def test_a_few_rows_wait_with_their_matrix_on_its_way_and_never_take_the_units_of_four_warps():
    """Tiles of 16 columns gave wrong numbers there; and what a program holds is asked for before it waits."""
    kernels = compiled("few_rows_order")
    assert len(kernels) == 2
    sums, dots = kernels
    assert "loads before the wait 8 " in sums and "HGMMA False" in sums
    assert "HMMA True" in dots and "HGMMA False" in dots
