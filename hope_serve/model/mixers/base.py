"""What every kind of Titans memory offers: the chunk form for training, the slot form for serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import torch
from hope_kernels.layout import LinearWeights, MlpWeights
from torch import Tensor

Clocks = tuple[Any, ...]
SlotClocks = tuple[Any, ...]
"""One clock state each, over the slots of a pool."""


class ClockState(Protocol):
    """The state of one clock; the first axis of every tensor is the sequence, or the slot."""

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        ...

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around other tensors."""
        ...


class Mixer(Protocol):
    """One layer's memories: what they start from, and how tokens read and write them.

    Shape letters as in ``hope_kernels.layout``; N rows of a batch by slot.
    """

    @property
    def weights(self) -> LinearWeights | MlpWeights:
        """What the memories start from."""
        ...

    @property
    def num_heads(self) -> int:
        """H."""
        ...

    def fresh(self, batch: int) -> Clocks:
        """The state of sequences before their first token, for ``chunk``."""
        ...

    def chunk(self, x: Tensor, q: Tensor, clocks: Clocks, *, consumed: int) -> tuple[Tensor, Clocks]:
        """T tokens of B sequences at one place, state in and state out, differentiable throughout.

        x, q: [B, H, T, D]; the query comes before its L2 norm. Returns o: [B, H, T, D] and the state after it.
        """
        ...

    def slots(self, count: int, *, state: torch.dtype, ring: torch.dtype) -> SlotClocks:
        """The state of ``count`` slots before their first token, with matrices and rings in these dtypes."""
        ...

    def run(
        self, x: Tensor, q: Tensor, clocks: SlotClocks, slots: Tensor, starts: Tensor | None, *, fills_chunk: bool
    ) -> Tensor:
        """Rows of sequences by slot, in place on the clocks; differentiable once, by x and q.

        x, q: [N, H, D]; slots and starts as in ``Batch``. Full chunks are committed. Returns o: [N, H, D].
        """
        ...


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., d] to [..., H, D]."""
    return x.view(*x.shape[:-1], heads, -1)
