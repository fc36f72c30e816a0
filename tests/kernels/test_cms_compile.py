"""Every CMS kernel variant compiled for sm_90, without a GPU."""

from __future__ import annotations

import re

import pytest
from support.compiled import ALL, EXTENTS, compiled


@pytest.mark.timeout(300)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_variant_spills_and_decode_reads_the_deltas_in_whole_16_bytes_before_it_waits_for_the_projection(extent):
    kernels = compiled("cms_variants", extent)
    assert len(kernels) == (36 if extent == ALL else 9)
    decode = next(line for line in kernels if "decode_kernel" in line)  # of the first shape: r 16, delta bfloat16
    early = re.search(r"early loads (\d+)", decode)
    assert early and int(early[1]) >= 8, decode
