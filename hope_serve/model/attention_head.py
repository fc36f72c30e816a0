"""What is taken of hidden vectors at the head: the gradient that a lesson begins with, and the two outer losses.

Shapes: n tokens, d hidden, V vocabulary; head: [V, d].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.attention_ops import precise


def loss_gradient(hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """The gradient of ``sum(weight * cross_entropy)`` with respect to ``hidden`` [n, d].

    Args:
        targets, weight: [n].
    """
    shares = torch.softmax(F.linear(hidden, head), -1, dtype=precise(hidden.dtype))
    pulled = (shares * weight[:, None]).to(hidden.dtype) @ head
    return pulled - F.embedding(targets, head) * weight[:, None].to(hidden.dtype)


def cross_entropies(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Nats [n] of the targets [n], in at least 32 bits."""
    logits = F.linear(hidden, head).to(precise(hidden.dtype))
    return F.cross_entropy(logits, targets, reduction="none")


def divergences(hidden: Tensor, head: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || now) in nats [n], of the next tokens that two hidden vectors each foresee.

    Args:
        hidden, wanted: [n, d], now and as they should be; ``wanted`` is a constant.
    """
    dtype = precise(hidden.dtype)
    with torch.no_grad():
        then = F.log_softmax(F.linear(wanted, head).to(dtype), -1)
    now = F.log_softmax(F.linear(hidden, head).to(dtype), -1)
    return F.kl_div(now, then, reduction="none", log_target=True).sum(-1)
