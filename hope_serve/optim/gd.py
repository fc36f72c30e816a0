"""Gradient descent: the paper's default rule for a level."""

from __future__ import annotations

import msgspec
from torch import Tensor

from hope_serve.optim.base import KernelRule, Shape, Slots


class GradientDescent(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="gd"
):
    """delta <- decay delta - rate gradient (arXiv 2512.24695, Eq 71)."""

    @property
    def kernel(self) -> KernelRule:
        """See ``LevelOptimizer.kernel``."""
        return KernelRule(beta=None)

    def slot_shapes(self, delta: Shape) -> tuple[Shape, ...]:  # noqa: ARG002
        """Nothing is kept."""
        return ()

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        return decay * delta - rate * gradient, slots
