"""Gradient descent with momentum, itself an associative memory of the gradients."""

from __future__ import annotations

from torch import Tensor

from hope_serve.optim.base import Slots


class Momentum:
    """m <- beta m + gradient; delta <- decay delta - rate m (arXiv 2512.24695, section 4.2).

    ``beta`` below 1 bounds m; at 0 the rule is ``GradientDescent``.
    """

    num_slots = 1

    def __init__(self, beta: float = 0.9) -> None:
        if not 0 <= beta < 1:
            raise ValueError(f"momentum is {beta}; it must lie in [0, 1)")
        self.beta = beta

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        momentum = self.beta * slots[0] + gradient
        return decay * delta - rate * momentum, (momentum,)
