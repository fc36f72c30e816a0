"""What a level's optimizer is: a pure function of one matrix's delta, gradient and slots."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

Slots = tuple[Tensor, ...]


class LevelOptimizer(Protocol):
    """One rule for every matrix of a level; batched over leading axes, differentiable, without hidden state."""

    num_slots: int
    """Tensors of the delta's shape that the rule keeps between chunks."""

    @property
    def beta(self) -> float | None:
        """What the one slot retains of itself at an update; None where there is none."""
        ...

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """The delta after one chunk.

        Args:
            delta: the level's delta, any shape.
            gradient: the chunk's gradient, summed over its tokens, of the same shape.
            slots: ``num_slots`` tensors of the same shape.
            rate: eta^(l), broadcastable to the shape.
            decay: what one update retains of the old delta, broadcastable to the shape.
        """
        ...
