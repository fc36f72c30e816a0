"""Every kernel of commit and of chunk compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize(("op", "some", "every"), [("commit", 5, 10), ("mlp_commit", 18, 33), ("chunk", 15, 27)])
def test_no_kernel_spills(op, some, every, extent):
    assert len(compiled("titans_variants", op, extent)) >= (every if extent == ALL else some)
