"""MLP memories, the paper's default, whose rule ``MlpState`` knows: one clock, delta retention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hope_kernels.layout import MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_chunk.op import titans_chunk
from hope_kernels.titans_chunk.reference_memories import fresh_memories, titans_chunk_memories_reference
from hope_kernels.titans_commit.mlp_op import mlp_commit
from hope_kernels.titans_decode.op import titans_decode
from torch import Tensor

from hope_serve.model.mixers.base import Clocks, SlotClocks


@dataclass(frozen=True, kw_only=True)
class MlpMemory:
    """See ``Mixer``."""

    weights: MlpWeights
    rule: TitansRule

    @property
    def num_heads(self) -> int:
        """H."""
        return len(self.weights.gate_bias)

    def fresh(self, batch: int) -> Clocks:
        """See ``Mixer.fresh``."""
        return fresh_memories(batch, self.weights, self.rule)

    def chunk(self, x: Tensor, q: Tensor, clocks: Clocks, *, consumed: int) -> tuple[Tensor, Clocks]:
        """See ``Mixer.chunk``."""
        positions = (consumed % self.rule.chunk_size,)
        return titans_chunk_memories_reference(x, q, self.weights, self.rule, clocks, positions=positions)

    def slots(self, count: int, *, state: torch.dtype, ring: torch.dtype) -> SlotClocks:
        """See ``Mixer.slots``."""
        return (MlpState.fresh(count, self.weights, self.rule.chunk_size, dtype=state, ring_dtype=ring),)

    def run(
        self, x: Tensor, q: Tensor, clocks: SlotClocks, slots: Tensor, starts: Tensor | None, *, fills_chunk: bool
    ) -> Tensor:
        """See ``Mixer.run``."""
        if starts is not None:
            return titans_chunk(x, q, self.weights, self.rule, clocks, slots, starts)
        out = titans_decode(x, q, self.weights, self.rule, clocks, slots)
        if fills_chunk:
            mlp_commit(self.weights, self.rule, clocks[0], slots)
        return out
