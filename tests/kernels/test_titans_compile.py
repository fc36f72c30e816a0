"""Every kernel of commit and of chunk compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled, counted


@pytest.mark.timeout(600)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_kernel_spills(extent):
    some, every = {"commit": 3, "mlp_commit": 9, "chunk": 9}, {"commit": 10, "mlp_commit": 33, "chunk": 27}
    assert counted(compiled("titans_variants", extent)) == (every if extent == ALL else some)
