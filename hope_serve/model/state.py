"""What a sequence carries from call to call: conv tails and Titans memories, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from hope_kernels.layout import LinearState, LinearWeights, MemoriesState, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState, knows_rule
from hope_kernels.titans_chunk.reference_memories import fresh_memories
from torch import Tensor

CONV_TAIL = 3
TitansClock = LinearState | MlpState | MemoriesState


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """One layer: the conv's last inputs [B, 3, d], oldest first, and one memory state a clock."""

    tail: Tensor
    clocks: tuple[TitansClock, ...]

    @classmethod
    def fresh(cls, batch: int, hidden_size: int, weights: LinearWeights | MlpWeights, rule: TitansRule) -> Self:
        """The state before the first token."""
        tail = weights.gate_bias.new_zeros(batch, CONV_TAIL, hidden_size)
        if isinstance(weights, LinearWeights) and rule.retain_delta:
            clocks: tuple[TitansClock, ...] = tuple(
                LinearState.fresh(batch, weights, size) for size in rule.chunk_sizes
            )
        elif isinstance(weights, MlpWeights) and knows_rule(rule):
            clocks = (MlpState.fresh(batch, weights, rule.chunk_size),)
        else:
            clocks = fresh_memories(batch, weights, rule)
        return cls(tail=tail, clocks=clocks)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        named = {f"clock{i}.{name}": t for i, clock in enumerate(self.clocks) for name, t in clock.tensors().items()}
        return {"tail": self.tail} | named

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around other tensors."""
        clocks = tuple(
            clock.with_tensors({n.partition(".")[2]: t for n, t in named.items() if n.startswith(f"clock{i}.")})
            for i, clock in enumerate(self.clocks)
        )
        return type(self)(tail=named["tail"], clocks=clocks)


@dataclass(frozen=True, kw_only=True)
class SequenceState:
    """B sequences; the first axis of every tensor is the sequence."""

    layers: tuple[LayerState, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, ``layer.part``."""
        return {f"{i}.{name}": t for i, layer in enumerate(self.layers) for name, t in layer.tensors().items()}

    def with_tensors(self, named: Mapping[str, Tensor]) -> Self:
        """The same structure around other tensors."""
        layers = tuple(
            layer.with_tensors({n.partition(".")[2]: t for n, t in named.items() if n.startswith(f"{i}.")})
            for i, layer in enumerate(self.layers)
        )
        return type(self)(layers=layers)

    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())


def tail_after(x: Tensor, tail: Tensor, lengths: Tensor | None) -> Tensor:
    """The conv's last inputs after x [B, T, d], of which row b counts ``lengths[b]`` tokens."""
    joined = torch.cat([tail, x], 1)
    if lengths is None:
        return joined[:, -CONV_TAIL:]
    index = lengths[:, None] + torch.arange(CONV_TAIL, device=x.device)
    return joined.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
