"""A launch of the number that a draw begins with, alone."""

from __future__ import annotations

import triton
import triton.language as tl
from hope_kernels.sample.draw_kernel import uniform


@triton.jit
def uniform_kernel(seed_ptr, position_ptr, out_ptr):
    at = tl.program_id(0)
    tl.store(out_ptr + at, uniform(tl.load(seed_ptr + at), tl.load(position_ptr + at)))
