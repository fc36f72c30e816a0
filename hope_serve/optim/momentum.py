"""Gradient descent with momentum, itself an associative memory of the gradients."""

from __future__ import annotations

import msgspec
from torch import Tensor

from hope_serve.optim.base import KernelRule, Shape, Slots
from hope_serve.optim.limits import require_retention


class Momentum(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="momentum"):
    """m <- beta m + gradient; delta <- decay delta - rate m (arXiv 2512.24695, section 4.2).

    ``beta`` below 1 bounds m; at 0 the rule is ``GradientDescent``.
    """

    beta: float = 0.9

    def __post_init__(self) -> None:
        require_retention("momentum.beta", self.beta)

    @property
    def kernel(self) -> KernelRule:
        """See ``LevelOptimizer.kernel``."""
        return KernelRule(beta=self.beta)

    def slot_shapes(self, delta: Shape) -> tuple[Shape, ...]:
        """m."""
        return (delta,)

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        momentum = self.beta * slots[0] + gradient
        return decay * delta - rate * momentum, (momentum,)
