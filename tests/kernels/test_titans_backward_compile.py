"""Every kernel of chunk's backward compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_backward_kernel_spills(extent):
    assert len(compiled("titans_backward_variants", extent)) == (32 if extent == ALL else 8)
