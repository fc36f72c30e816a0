"""Memory of slots: every slot one contiguous row of bytes, and every tensor a strided view of all rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNMENT = 256
"""Bytes; as wide as any load of a kernel."""


class Part(NamedTuple):
    """One tensor of a slot."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class SlabLayout:
    """Where the parts of one slot lie in its row."""

    parts: Mapping[str, Part]

    @property
    def num_bytes(self) -> int:
        """Bytes of a row."""
        return sum(_padded(part) for part in self.parts.values())

    def views(self, slab: Tensor) -> dict[str, Tensor]:
        """Every part of rows [S, num_bytes] (uint8), as [S, *shape]."""
        named, at = {}, 0
        for name, (shape, dtype) in self.parts.items():
            size = math.prod(shape) * dtype.itemsize
            named[name] = slab[:, at : at + size].view(dtype).view(len(slab), *shape)
            at += _padded(self.parts[name])
        return named

    def row(self, named: Mapping[str, Tensor], *, pinned: bool = False) -> Tensor:
        """One row [num_bytes] on the host, around the parts in ``named``; values are converted, shapes must fit."""
        row = torch.zeros(1, self.num_bytes, dtype=torch.uint8, pin_memory=pinned)
        for name, view in self.views(row).items():
            view[0].copy_(named[name])
        return row[0]

    def of_row(self, row: Tensor) -> dict[str, Tensor]:
        """Every part of one row [num_bytes], without a slot axis."""
        return {name: view[0] for name, view in self.views(row[None]).items()}


class Slab:
    """A pool of ``num_slots`` slots and slot 0, which is nobody's.

    Moving a slot's content is one copy of ``num_bytes``.
    """

    def __init__(self, layout: SlabLayout, num_slots: int, *, device: str, fresh: Tensor | None = None) -> None:
        self.layout = layout
        self.rows = torch.zeros(num_slots + 1, layout.num_bytes, dtype=torch.uint8, device=device)
        self.views = layout.views(self.rows)
        self._fresh = None if fresh is None else fresh.to(device)

    def clear(self, slot: int) -> None:
        """Make a slot as before its first token."""
        if self._fresh is None:
            self.rows[slot].zero_()
        else:
            self.rows[slot].copy_(self._fresh)

    def load(self, slot: int, row: Tensor) -> None:
        """Fill a slot from a row on the host."""
        self.rows[slot].copy_(row, non_blocking=True)

    def save(self, slot: int) -> Tensor:
        """A slot's row on the host; waits for the device, whose copies into pinned memory go several times as fast."""
        kept = torch.empty(self.layout.num_bytes, dtype=torch.uint8, pin_memory=self.rows.is_cuda)
        return kept.copy_(self.rows[slot])

    def copy(self, source: int, target: int) -> None:
        """Make one slot the twin of another."""
        self.rows[target].copy_(self.rows[source])

    def poison(self, slot: int) -> None:
        """Fill a slot with what reads as NaN in every float, so that whoever reads it by mistake is found."""
        self.rows[slot].fill_(0xFF)


def _padded(part: Part) -> int:
    size = math.prod(part.shape) * part.dtype.itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT
