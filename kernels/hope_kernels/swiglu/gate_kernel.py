# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a row's gate lets through, and the gradient of both."""

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


@triton.jit
def gate_backward_kernel(gate_up_ptr, by_y_ptr, by_ptr, stride, by_stride, F: tl.constexpr, BLOCK: tl.constexpr):
    """by: [N, 2 F] contiguous, the gradient of gate and up side by side; one program a (row, BLOCK of F)."""
    blocks: tl.constexpr = (F + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // blocks).to(tl.int64)
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = at < F
    gate = tl.load(gate_up_ptr + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * stride + F + at, mask=inside, other=0.0).to(tl.float32)
    by_y = tl.load(by_y_ptr + row * by_stride + at, mask=inside, other=0.0).to(tl.float32)
    shape = tl.sigmoid(gate)
    by_gate = by_y * up * shape * (1.0 + gate * (1.0 - shape))
    tl.store(by_ptr + row * 2 * F + at, by_gate.to(by_ptr.dtype.element_ty), mask=inside)
    tl.store(by_ptr + row * 2 * F + F + at, (by_y * gate * shape).to(by_ptr.dtype.element_ty), mask=inside)
