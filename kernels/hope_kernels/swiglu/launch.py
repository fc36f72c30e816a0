"""How the gated unit's kernels are launched."""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.swiglu.gate_kernel import gate_backward_kernel, gate_kernel

BLOCK = 1024


def launch_swiglu(gate_up: Tensor) -> Tensor:
    """``swiglu`` on the kernel; arguments have been checked."""
    rows, width = len(gate_up), gate_up.shape[1] // 2
    gate_up = gate_up if gate_up.stride(1) == 1 else gate_up.contiguous()
    y = torch.empty(rows, width, dtype=gate_up.dtype, device=gate_up.device)
    block = min(BLOCK, int(triton.next_power_of_2(width)))
    grid = (rows * triton.cdiv(width, block),)
    gate_kernel[grid](gate_up, y, gate_up.stride(0), F=width, BLOCK=block, num_warps=4)
    return y


def launch_swiglu_backward(gate_up: Tensor, by_y: Tensor) -> Tensor:
    """The gradient of ``gate_up``, [N, 2 F], from that of the result."""
    rows, width = by_y.shape
    gate_up, by_y = (t if t.stride(1) == 1 else t.contiguous() for t in (gate_up, by_y))
    by = torch.empty(rows, 2 * width, dtype=gate_up.dtype, device=gate_up.device)
    block = min(BLOCK, int(triton.next_power_of_2(width)))
    grid = (rows * triton.cdiv(width, block),)
    strides = gate_up.stride(0), by_y.stride(0)
    gate_backward_kernel[grid](gate_up, by_y, by, *strides, F=width, BLOCK=block, num_warps=4)
    return by
