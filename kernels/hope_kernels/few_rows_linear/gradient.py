"""Whether somebody differentiates a product."""

from __future__ import annotations

import torch
from torch import Tensor


def wants_gradient(*given: Tensor) -> bool:
    """Whether autograd records what is computed from these."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
