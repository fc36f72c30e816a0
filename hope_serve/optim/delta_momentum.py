"""Momentum by the delta rule: what it held in a gradient's direction makes room for that gradient."""

from __future__ import annotations

from typing import Literal

import msgspec
from torch import Tensor

from hope_serve.optim.base import Shape, Slots
from hope_serve.optim.limits import require_between, require_retention
from hope_serve.optim.matrices import inverse_root, square_norm


class DeltaMomentum(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="delta_momentum"
):
    """m <- m (beta I - erase k^T k) + gradient; delta <- decay delta - rate m (arXiv 2512.24695, Eqs 48-49, P = I).

    The paper leaves open, and this fixes:

    - the key k. ``normalized``, the gradient over its norm: one update then retains at most
      max(beta, erase - beta) of m. ``raw``, the gradient, is the paper's letter with ``erase`` 1; it diverges where
      the square of the gradient's largest singular value exceeds 1 + beta.
    - the sign and rate of the step, which stand in the delta's update as for ``Momentum``; ``erase`` 0 is that rule.
    """

    beta: float = 0.9
    erase: float = 1.0
    keys: Literal["normalized", "raw"] = "normalized"

    def __post_init__(self) -> None:
        require_retention("delta_momentum.beta", self.beta)
        require_between("delta_momentum.erase", self.erase, 0, 1)

    @property
    def kernel(self) -> None:
        """See ``LevelOptimizer.kernel``."""
        return

    def slot_shapes(self, delta: Shape) -> tuple[Shape, ...]:
        """m."""
        return (delta,)

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        key = gradient
        if self.keys == "normalized":
            key = key * inverse_root(square_norm(key))
        momentum = self.beta * slots[0] - self.erase * (slots[0] @ key.mT) @ key + gradient
        return decay * delta - rate * momentum, (momentum,)
