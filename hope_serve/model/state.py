"""What a sequence carries from call to call: conv tails and Titans memories, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from hope_serve.model.mixers import ClockState

CONV_TAIL = 3


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """One layer: the conv's last inputs [B, 3, d], oldest first, and one memory state a clock."""

    tail: Tensor
    clocks: tuple[ClockState, ...]

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
