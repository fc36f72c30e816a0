"""Every decode kernel compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize(("memory", "some", "every"), [("linear", 10, 18), ("mlp", 12, 24)])
def test_no_decode_kernel_spills(memory, some, every, extent):
    assert len(compiled("decode_variants", memory, extent)) == (every if extent == ALL else some)
