"""Keys and values of every slot: a cache that grows with its tokens, at fixed addresses, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from hope_kernels.cache_write.rotations import rotation_tables
from torch import Tensor

from hope_serve.model.attention import AttentionShape
from hope_serve.model.serving.batch import Batch


class CacheLayer(NamedTuple):
    """One layer's keys (rotated) and values of every slot, [S, T, K, e] each."""

    keys: Tensor
    values: Tensor


class Run(NamedTuple):
    """One sequence's rows [begin, end) of a batch, behind ``before`` tokens of its slot."""

    slot: int
    begin: int
    end: int
    before: int


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a batch's rows stand, for all layers of a pass.

    tables: cos and sin of every position, [P, e / 2]. slots, positions: [N] int32, of each row. before, after: [B]
    int32, each sequence's tokens before the pass and after it.
    """

    batch: Batch
    tables: tuple[Tensor, Tensor]
    slots: Tensor
    positions: Tensor
    before: Tensor
    after: Tensor

    @cached_property
    def rotations(self) -> tuple[Tensor, Tensor]:
        """(cos, sin) of every row, [N, 1, e]."""
        at = self.positions.long()
        cos, sin = (table[at][:, None] for table in self.tables)
        return torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)

    @cached_property
    def runs(self) -> list[Run]:
        """The sequences one by one, on the host; waits for the device."""
        slots, starts = self.batch.slots, self.batch.starts
        bounds = range(len(slots) + 1) if starts is None else starts.tolist()
        pairs = zip(slots.tolist(), pairwise(bounds), self.before.tolist(), strict=True)
        return [Run(slot, begin, end, before) for slot, (begin, end), before in pairs]


class CachePool:
    """See ``StatePool``. A slot's row is [2, L, n, K, e] of its n tokens, whatever the room for them."""

    def __init__(
        self, shape: AttentionShape, num_slots: int, *, max_tokens: int, dtype: torch.dtype, device: str
    ) -> None:
        size = (2, shape.num_layers, num_slots + 1, max_tokens, shape.num_key_heads, shape.head_size)
        # Not even zeroed: what lies behind a sequence's length is never read, and a page nobody wrote to takes no RAM.
        self._both = torch.empty(size, dtype=dtype, device=device)
        self.layers = tuple(CacheLayer(*pair) for pair in zip(*self._both, strict=True))
        self.lengths = torch.zeros(num_slots + 1, dtype=torch.int32, device=device)
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        frequencies = torch.tensor(shape.inverse_frequencies, dtype=wide, device=device)
        self._tables = rotation_tables(frequencies, max_tokens)

    def begin(self, batch: Batch) -> Places:
        """Where the batch's rows stand."""
        index = batch.slots.long()
        before = self.lengths[index]
        if batch.starts is None:
            positions, after, slots = before, before + 1, batch.slots
        else:
            counts, rows = batch.starts.diff(), torch.arange(len(batch.tokens), dtype=torch.int32, device=index.device)
            owner = torch.repeat_interleave(counts.long(), output_size=len(rows))
            positions, after, slots = rows + (before - batch.starts[:-1])[owner], before + counts, batch.slots[owner]
        return Places(batch=batch, tables=self._tables, slots=slots, positions=positions, before=before, after=after)

    def end(self, batch: Batch, shared: Places) -> None:
        """The sequences have grown; slot 0 stays empty."""
        grown = torch.where(batch.slots > 0, shared.after, torch.zeros_like(shared.after))
        self.lengths.index_copy_(0, batch.slots.long(), grown)

    def clear(self, slot: int) -> None:
        """See ``StatePool.clear``: what lies behind a sequence's length is never read."""
        self.lengths[slot] = 0

    def load(self, slot: int, row: Tensor) -> None:
        """See ``StatePool.load``."""
        self._both[:, :, slot, : row.shape[2]].copy_(row, non_blocking=True)
        self.lengths[slot] = row.shape[2]

    def save(self, slot: int) -> Tensor:
        """See ``StatePool.save``."""
        return self._both[:, :, slot, : int(self.lengths[slot])].to("cpu", copy=True)

    def copy(self, source: int, target: int) -> None:
        """See ``StatePool.copy``."""
        length = int(self.lengths[source])
        self._both[:, :, target, :length].copy_(self._both[:, :, source, :length])
        self.lengths[target] = length

    def poison(self, slot: int) -> None:
        """See ``StatePool.poison``."""
        self._both[:, :, slot].fill_(float("nan"))
