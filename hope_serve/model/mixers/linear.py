"""Linear memories with delta retention: the five of a head are one matrix (hope_kernels/titans_chunk/README.md)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_chunk.op import titans_chunk
from hope_kernels.titans_chunk.reference import titans_chunk_reference
from hope_kernels.titans_commit.op import titans_commit
from hope_kernels.titans_decode.op import titans_decode
from torch import Tensor

from hope_serve.model.mixers.base import Clocks, SlotClocks


@dataclass(frozen=True, kw_only=True)
class LinearMemory:
    """See ``Mixer``."""

    weights: LinearWeights
    rule: TitansRule

    @property
    def num_heads(self) -> int:
        """H."""
        return len(self.weights.gate_bias)

    def fresh(self, batch: int) -> Clocks:
        """See ``Mixer.fresh``."""
        return tuple(LinearState.fresh(batch, self.weights, size) for size in self.rule.chunk_sizes)

    def chunk(self, x: Tensor, q: Tensor, clocks: Clocks, *, consumed: int) -> tuple[Tensor, Clocks]:
        """See ``Mixer.chunk``."""
        positions = tuple(consumed % size for size in self.rule.chunk_sizes)
        return titans_chunk_reference(x, q, self.weights, self.rule, clocks, positions=positions)

    def slots(self, count: int, *, state: torch.dtype, ring: torch.dtype) -> SlotClocks:
        """See ``Mixer.slots``."""
        return tuple(
            LinearState.fresh(count, self.weights, size, dtype=state, ring_dtype=ring) for size in self.rule.chunk_sizes
        )

    def run(
        self, x: Tensor, q: Tensor, clocks: SlotClocks, slots: Tensor, starts: Tensor | None, *, fills_chunk: bool
    ) -> Tensor:
        """See ``Mixer.run``."""
        if starts is not None:
            return titans_chunk(x, q, self.weights, self.rule, clocks, slots, starts)
        out = titans_decode(x, q, self.weights, self.rule, clocks, slots)
        if fills_chunk:
            for clock in clocks:
                titans_commit(clock, slots)
        return out
