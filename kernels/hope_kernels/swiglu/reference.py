"""The gated unit in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from hope_kernels.pool import working_dtype


def swiglu_reference(gate_up: Tensor) -> Tensor:
    """Arguments as ``swiglu``; differentiable any number of times."""
    gate, up = gate_up.to(working_dtype(gate_up)).chunk(2, -1)
    return (F.silu(gate) * up).to(gate_up.dtype)
