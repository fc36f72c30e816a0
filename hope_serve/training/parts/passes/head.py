"""What is taken at the head: every function of a token's logits is left with its gradient at the hidden vector alone.

The logits of a batch are its largest tensors. Their errors are one pass over them; no softmax of 32 bits is stored.
The head itself is frozen.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hope_serve.training.parts.passes.pointwise import Kernels


class LossGradient(torch.autograd.Function):
    """The gradient [n, d] of ``sum(weight * cross_entropy)``, as ``hope_serve.model.attention_head`` has it."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Hidden vectors [n, d]; head [V, d]; targets and weights [n]."""
        errors = kernels.errors(F.linear(hidden, head), targets)
        pulled = errors @ head
        ctx.save_for_backward(head, targets, weight, errors, pulled)
        ctx.kernels = kernels
        return pulled * weight[:, None].to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Outer gradients of the hidden vectors and of the weights."""
        head, targets, weight, errors, pulled = ctx.saved_tensors
        above = ctx.kernels.errors_adjoint(F.linear(outer, head), errors, targets, weight[:, None])
        for_weight = (outer.to(weight.dtype) * pulled).sum(-1)
        return None, above @ head, None, None, for_weight


class CrossEntropies(torch.autograd.Function):
    """Nats of every target [n] in at least 32 bits, of hidden vectors [n, d]."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        """Head [V, d]; targets [n]."""
        losses, errors = kernels.surprise(F.linear(hidden, head), targets)
        ctx.save_for_backward(errors @ head)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the hidden vectors."""
        return None, _scaled(ctx.saved_tensors[0], outer), None, None


class Divergences(torch.autograd.Function):
    """KL(wanted || now) in nats [n], of the next tokens that two hidden vectors [n, d] each foresee."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, hidden: Tensor, head: Tensor, wanted: Tensor) -> Tensor:
        """Hidden vectors now, the head [V, d], and the hidden vectors that are wanted, which are constants."""
        losses, errors = kernels.departure(F.linear(hidden, head), F.linear(wanted, head))
        ctx.save_for_backward(errors @ head)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the hidden vectors now."""
        return None, _scaled(ctx.saved_tensors[0], outer), None, None


def _scaled(pulled: Tensor, outer: Tensor) -> Tensor:
    """Each token's gradient [n, d] times the outer gradient of its loss."""
    return (pulled * outer[:, None]).to(pulled.dtype)
