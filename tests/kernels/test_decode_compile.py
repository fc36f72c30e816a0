"""Every decode kernel compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled, counted


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_decode_kernel_spills(extent):
    expected = {"linear": 18, "mlp": 24} if extent == ALL else {"linear": 6, "mlp": 6}
    assert counted(compiled("decode_variants", extent)) == expected
