# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a row's gate lets through."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gate_kernel(gate_up_ptr, y_ptr, stride, F: tl.constexpr, BLOCK: tl.constexpr):
    """One program a (row, BLOCK of F). y: contiguous."""
    blocks: tl.constexpr = (F + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = at < F
    gate = tl.load(gate_up_ptr + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * stride + F + at, mask=inside, other=0.0).to(tl.float32)
    y = gate * tl.sigmoid(gate) * up
    tl.store(y_ptr + row * F + at, y.to(y_ptr.dtype.element_ty), mask=inside)
