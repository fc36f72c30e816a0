"""Every kernel of attention by slot compiled for sm_90, without a GPU."""

from __future__ import annotations

import pytest
from support.compiled import ALL, EXTENTS, compiled, counted

SOME_KERNELS = {"attention_decode": 6, "attention_prefill": 3, "cache_write": 6, "swiglu": 2}
ALL_KERNELS = {"attention_decode": 20, "attention_prefill": 10, "cache_write": 20, "swiglu": 6}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("extent", EXTENTS)
def test_no_kernel_spills_or_takes_the_units_of_four_warps_and_keys_and_values_are_asked_for_ahead(extent):
    """Those would have an operand in registers inside a pipelined loop, which the assembler may get wrong."""
    kernels = compiled("attention_variants", extent)
    assert counted(kernels) == (ALL_KERNELS if extent == ALL else SOME_KERNELS)
    assert all("HGMMA False" in kernel for kernel in kernels)
    readers = [kernel for kernel in kernels if {"part_kernel", "prefill_kernel"} & set(kernel.split())]
    assert len(readers) >= SOME_KERNELS["attention_prefill"] * 2
    assert all("asynchronous True" in kernel for kernel in readers)
