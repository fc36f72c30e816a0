"""Every kernel of attention by slot compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import EXTENTS, compiled

OPS = {"attention_decode": 20, "attention_prefill": 10, "cache_write": 20, "swiglu": 6}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("op", OPS)
def test_no_kernel_spills_or_takes_the_units_of_four_warps(op, extent):
    """Those would have an operand in registers inside a pipelined loop, which the assembler may get wrong."""
    kernels = compiled("attention_variants", op, extent)
    assert 0 < len(kernels) <= OPS[op]
    assert all("HGMMA False" in kernel for kernel in kernels)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("op", "reader"), [("attention_decode", "part_kernel"), ("attention_prefill", "prefill_kernel")]
)
def test_keys_and_values_are_asked_for_ahead(op, reader):
    kernels = [kernel for kernel in compiled("attention_variants", op, "--some") if kernel.startswith(reader)]
    assert kernels and all("asynchronous True" in kernel for kernel in kernels)
