"""What a level's optimizer is: a pure function of one matrix's delta, gradient and slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Slots = tuple[Tensor, ...]
Shape = tuple[int, int]
"""Rows and columns of one matrix of one layer."""


@dataclass(frozen=True, kw_only=True)
class KernelRule:
    """A rule that the kernel ``cms_update`` applies. beta: what its one slot retains of itself; None without a slot."""

    beta: float | None


class LevelOptimizer(Protocol):
    """One rule for every matrix of a level; batched over leading axes, differentiable, without hidden state."""

    @property
    def kernel(self) -> KernelRule | None:
        """How the kernel applies this rule; None where only ``update`` does."""
        ...

    def slot_shapes(self, delta: Shape) -> tuple[Shape, ...]:
        """The matrices that the rule keeps between chunks, for a delta of that shape; all begin as zeros."""
        ...

    def update(
        self, delta: Tensor, gradient: Tensor, slots: Slots, *, rate: Tensor, decay: Tensor
    ) -> tuple[Tensor, Slots]:
        """The delta after one chunk, and the slots.

        Args:
            delta: the level's delta, [..., rows, columns].
            gradient: the chunk's gradient, summed over its tokens, of the same shape.
            slots: tensors [..., *shape] of ``slot_shapes``.
            rate: eta^(l), broadcastable to the delta.
            decay: what one update retains of the old delta, broadcastable to it.
        """
        ...
