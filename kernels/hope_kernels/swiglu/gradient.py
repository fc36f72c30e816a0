"""The gated unit as one autograd node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_kernels.swiglu.launch import launch_swiglu, launch_swiglu_backward


class Swiglu(torch.autograd.Function):
    """silu(gate) up, differentiable once; kept: what it is given."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """See ``swiglu``."""
        ctx.save_for_backward(gate_up)
        return launch_swiglu(gate_up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> Tensor:
        """The gradient of gate and up side by side."""
        (gate_up,) = ctx.saved_tensors
        return launch_swiglu_backward(gate_up, by_y)
