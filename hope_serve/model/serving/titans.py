"""Titans as served: stacked projections, the conv's tails and the memories of every slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from hope_kernels.conv_silu.op import conv_silu
from torch import Tensor

from hope_serve.model.mixers import SlotClocks, split_heads
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.product import Shared, product
from hope_serve.model.serving.slab import Part
from hope_serve.model.state import CONV_TAIL
from hope_serve.model.titans import Titans


@dataclass(frozen=True, kw_only=True)
class TitansSlots:
    """One layer's state of every slot. tail: [S, 3, d], the conv's last inputs; clocks: the memories'."""

    tail: Tensor
    clocks: SlotClocks


class ServedTitans:
    """W_o Titans(conv4(x)) over a batch by slot."""

    def __init__(self, titans: Titans, precision: Precision) -> None:
        self._mixer = titans.mixer()
        self._blank = self._mixer.slots(1, state=precision.state, ring=precision.ring)
        self._conv = titans.conv.detach()
        self._input = Shared.of(torch.cat([titans.input.weight, titans.query.weight]).detach())
        self._output = Shared.of(titans.output.weight.detach())

    def shared(self) -> list[Shared]:
        """The matrices that everybody's rows are multiplied by."""
        return [self._input, self._output]

    def initial(self) -> list[Tensor]:
        """What the memories start from."""
        weights = self._mixer.weights
        return [getattr(weights, field.name) for field in fields(weights)]

    def bind(self, views: Mapping[str, Tensor]) -> TitansSlots:
        """The layer's state in the tensors of a pool."""
        clocks = tuple(
            clock.with_tensors({n.partition(".")[2]: t for n, t in views.items() if n.startswith(f"clock{i}.")})
            for i, clock in enumerate(self._blank)
        )
        return TitansSlots(tail=views["tail"], clocks=clocks)

    def run(self, x: Tensor, batch: Batch, state: TitansSlots, shared: None = None) -> Tensor:  # noqa: ARG002
        """x: [N, d] to [N, d]; the state moves in place."""
        u = conv_silu(x, state.tail, self._conv, batch.slots, batch.starts)
        keys, queries = product(u, self._input).chunk(2, -1)
        heads = self._mixer.num_heads
        mixed = self._mixer.run(
            split_heads(keys, heads),
            split_heads(queries, heads),
            state.clocks,
            batch.slots,
            batch.starts,
            fills_chunk=batch.fills_chunk,
        )
        return product(mixed.flatten(1), self._output)


def slot_parts(titans: Titans, precision: Precision) -> dict[str, Part]:
    """The tensors of one slot of a layer, and their names in stored conversations."""
    return {name: Part(tuple(t.shape[1:]), t.dtype) for name, t in fresh_slot(titans, precision).items()}


def fresh_slot(titans: Titans, precision: Precision) -> dict[str, Tensor]:
    """One slot of a layer before its first token, [1, ...] each."""
    tail = titans.conv.new_zeros(1, CONV_TAIL, len(titans.conv), dtype=precision.compute)
    clocks = titans.mixer().slots(1, state=precision.state, ring=precision.ring)
    named = {f"clock{i}.{name}": t for i, clock in enumerate(clocks) for name, t in clock.tensors().items()}
    return {"tail": tail} | named
