"""Five separate memories in plain torch: what neither one matrix nor ``MlpState`` can follow.

Full retention, the delta rule for W1, two clocks of MLP memories: the paper's letter, kept as it is read there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from hope_kernels.layout import LinearWeights, MemoriesState, MlpWeights, TitansRule
from hope_kernels.titans_chunk.reference_memories import fresh_memories, titans_chunk_memories_reference
from torch import Tensor

from hope_serve.model.mixers.base import Clocks, SlotClocks


@dataclass(frozen=True, kw_only=True)
class SeparateMemories:
    """See ``Mixer``. Slots are run one after the other, and the host is waited for."""

    weights: LinearWeights | MlpWeights
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
        positions = tuple(consumed % size for size in self.rule.chunk_sizes)
        return titans_chunk_memories_reference(x, q, self.weights, self.rule, clocks, positions=positions)

    def slots(self, count: int, *, state: torch.dtype, ring: torch.dtype) -> SlotClocks:  # noqa: ARG002
        """See ``Mixer.slots``; always in the weights' own dtype, since the letter knows no other."""
        return fresh_memories(count, self.weights, self.rule)

    def run(
        self,
        x: Tensor,
        q: Tensor,
        clocks: SlotClocks,
        slots: Tensor,
        starts: Tensor | None,
        *,
        fills_chunk: bool,  # noqa: ARG002
    ) -> Tensor:
        """See ``Mixer.run``."""
        bounds = range(len(x) + 1) if starts is None else starts.tolist()
        out = [
            self._one(x[begin:end], q[begin:end], clocks, slot)
            for slot, (begin, end) in zip(slots.tolist(), pairwise(bounds), strict=True)
        ]
        return torch.cat(out)

    def _one(self, x: Tensor, q: Tensor, clocks: SlotClocks, slot: int) -> Tensor:
        """Consecutive tokens [T, H, D] of one slot."""
        if not slot:
            return torch.zeros_like(x)
        dtype = self.weights.gate_bias.dtype
        before = tuple(_picked(clock, slot) for clock in clocks)
        positions = tuple(int(clock.position[0]) for clock in before)
        x_BHTD, q_BHTD = (z.to(dtype).transpose(0, 1)[None] for z in (x, q))
        out, after = titans_chunk_memories_reference(
            x_BHTD, q_BHTD, self.weights, self.rule, before, positions=positions
        )
        for clock, new in zip(clocks, after, strict=True):
            moved = new.tensors()
            for name, tensor in clock.tensors().items():
                tensor[slot] = moved[name][0].detach()
        return out[0].transpose(0, 1).to(x.dtype)


def _picked(clock: MemoriesState, slot: int) -> MemoriesState:
    return clock.with_tensors({name: t[slot : slot + 1].clone() for name, t in clock.tensors().items()})
