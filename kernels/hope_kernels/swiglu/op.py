"""The public face of the gated unit: refuse what is wrong, then the kernel or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_float
from hope_kernels.swiglu.reference import swiglu_reference


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) up, computed in fp32; on a CUDA device one kernel, and differentiable once.

    Args:
        gate_up: [N, 2 F], each row its gate, then what it lets through; rows may lie apart.

    Returns:
        [N, F] in the dtype of gate_up.

    Raises:
        ValueError: gate_up does not fit.

    Source: arXiv 2002.05202.
    """
    require(gate_up.dim() == 2 and gate_up.shape[1] % 2 == 0, "gate_up's shape", tuple(gate_up.shape), "[N, 2 F]")
    require_float("gate_up", gate_up, gate_up)
    if gate_up.is_cuda and gate_up.numel() and gate_up.element_size() <= 4:
        from hope_kernels.swiglu.gradient import Swiglu
        from hope_kernels.swiglu.launch import launch_swiglu

        if torch.is_grad_enabled() and gate_up.requires_grad:
            return Swiglu.apply(gate_up)  # type: ignore[no-any-return,no-untyped-call]
        return launch_swiglu(gate_up)
    return swiglu_reference(gate_up)
