"""Every sampling kernel compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import compiled


@pytest.mark.timeout(300)
def test_no_sampling_kernel_spills():
    assert len(compiled("sample_variants")) == 22
