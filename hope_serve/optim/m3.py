"""Multi-scale momentum Muon: a fast and a slow momentum, each made orthogonal, over the gradient's variance."""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor

from hope_serve.optim.base import Shape, Slots
from hope_serve.optim.limits import require_between, require_retention
from hope_serve.optim.matrices import inverse_root, newton_schulz, root, square_norm

MAX_FREQUENCY = 256
"""Chunks are counted in a memory's own dtype, and bfloat16 counts no further."""
MAX_WEIGHT = 100.0
MAX_STEPS = 32


class MultiScaleMomentum(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="rule", tag="m3"
):
    """The direction of arXiv 2512.24695, Algorithm 1 (M3), with a step as long as momentum's.

        m1 <- beta_fast m1 + g                      v <- beta_square v + g^2
        every ``frequency`` chunks, behind the step: m2 <- beta_slow m2 + the sum of their g
        d = (NS(m1) + slow_weight NS(m2)) / sqrt(v + damping mean(v))
        delta <- decay delta - rate |m1| d / |d|

    Three things differ from what is printed, each of them needed where a level learns for ever:

    - the momenta and v decay; printed, they are sums without end. The printed factors on g change nothing here: NS
      takes no notice of a factor, and one on v is one on the rate.
    - the damping is a share of v's mean, not a constant, so that it means the same in every unit of loss.
    - the step is as long as m1. Printed, it shrinks as gradients grow: a larger ``learning_rate_scale`` would teach
      less, and the faintest gradient would move the most.
    """

    beta_fast: float = 0.9
    beta_square: float = 0.99
    beta_slow: float = 0.9
    slow_weight: float = 0.5
    frequency: int = 8
    steps: int = 5
    damping: float = 0.01

    def __post_init__(self) -> None:
        require_retention("m3.beta_fast", self.beta_fast)
        require_retention("m3.beta_square", self.beta_square)
        require_retention("m3.beta_slow", self.beta_slow)
        require_between("m3.slow_weight", self.slow_weight, 0, MAX_WEIGHT)
        require_between("m3.frequency", self.frequency, 1, MAX_FREQUENCY)
        require_between("m3.steps", self.steps, 1, MAX_STEPS)
        require_between("m3.damping", self.damping, 1e-6, 1)

    @property
    def kernel(self) -> None:
        """See ``LevelOptimizer.kernel``."""
        return

    def slot_shapes(self, delta: Shape) -> tuple[Shape, ...]:
        """m1, the root of v, m2, the sum of g since m2 moved, and the chunks in it."""
        return delta, delta, delta, delta, (1, 1)

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """See ``LevelOptimizer.update``."""
        fast, deviation, slow, recent, count = slots
        fast = self.beta_fast * fast + gradient
        variance = self.beta_square * deviation.square() + gradient.square()
        step = self._step(fast, slow, variance)
        recent, count = recent + gradient, count + 1
        full = count >= self.frequency
        kept = (
            fast,
            root(variance),  # fp16 holds a gradient where its square is lost
            torch.where(full, self.beta_slow * slow + recent, slow),
            torch.where(full, 0.0, recent),
            torch.where(full, 0.0, count),
        )
        return decay * delta - rate * step, kept

    def _step(self, fast: Tensor, slow: Tensor, variance: Tensor) -> Tensor:
        orthogonal = newton_schulz(fast, self.steps) + self.slow_weight * newton_schulz(slow, self.steps)
        direction = orthogonal * inverse_root(variance + self.damping * variance.mean((-2, -1), keepdim=True))
        return root(square_norm(fast)) * inverse_root(square_norm(direction)) * direction
