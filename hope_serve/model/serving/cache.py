"""Keys and values of every slot: a cache that grows with its tokens, at fixed addresses, up to a limit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionShape, rotations
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

    cos, sin: [N, 1, e]. slots, positions: [N], of each row. before, after: [B] int32, each sequence's tokens before
    the pass and after it.
    """

    cos: Tensor
    sin: Tensor
    slots: Tensor
    positions: Tensor
    before: Tensor
    after: Tensor
    starts: Tensor | None

    def runs(self, slots: Tensor) -> list[Run]:
        """The sequences one by one, on the host; waits for the device."""
        bounds = range(len(slots) + 1) if self.starts is None else self.starts.tolist()
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
        tables = rotations(shape, torch.arange(max_tokens, device=device)[None], wide)
        self._cos, self._sin = (table[0, 0] for table in tables)

    def begin(self, batch: Batch) -> Places:
        """Where the batch's rows stand."""
        index = batch.slots.long()
        before = self.lengths[index]
        if batch.starts is None:
            counts, positions, slots = torch.ones_like(before), before.long(), batch.slots
        else:
            counts = (batch.starts[1:] - batch.starts[:-1]).to(torch.int32)
            rows = torch.arange(len(batch.tokens), device=index.device)
            owner = torch.repeat_interleave(counts.long(), output_size=len(rows))
            positions, slots = rows - batch.starts.long()[owner] + before.long()[owner], batch.slots[owner]
        return Places(
            cos=self._cos[positions][:, None],
            sin=self._sin[positions][:, None],
            slots=slots,
            positions=positions,
            before=before,
            after=before + counts,
            starts=batch.starts,
        )

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
