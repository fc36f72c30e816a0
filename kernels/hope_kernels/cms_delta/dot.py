# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Products of tiles that lose nothing their operands had."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def full_dot(a, b, acc, SAME: tl.constexpr):
    """acc + a @ b. SAME: both are of one 16-bit type, which the units multiply as it is; else as fp32 would."""
    if SAME:
        return tl.dot(a, b, acc)
    return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="tf32x3")
