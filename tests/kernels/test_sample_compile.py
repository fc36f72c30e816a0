"""Every sampling kernel compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_sampling_kernel_spills(extent):
    assert len(compiled("sample_variants", extent)) == (22 if extent == ALL else 8)
