"""Gradient descent: the paper's default rule for a level."""

from __future__ import annotations

from torch import Tensor

from hope_serve.optim.base import Slots


class GradientDescent:
    """delta <- decay delta - rate gradient (arXiv 2512.24695, Eq 71)."""

    num_slots = 0
    beta = None

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        return decay * delta - rate * gradient, slots
