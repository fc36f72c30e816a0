"""Memories of attention beside a cache that is somebody else's, who names its blocks: one pool, a row a slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from hope_kernels.cms_delta.projected_op import cms_delta_projected
from torch import Tensor, nn


class Rows(NamedTuple):
    """The rows of a step that belong to somebody, the first ``num_rows``. slots, starts: as ``cms_delta_projected``."""

    num_rows: int
    slots: Tensor
    starts: Tensor | None


class BlockPool(nn.Module):
    """B of every request and layer, [S, L, d, r]; slot 0 is nobody's.

    A request's first block of the cache is its own as long as it runs, so a table from blocks to slots says whose a row
    is, and whoever schedules the cache hears nothing of memories.
    """

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.pool = torch.zeros(shape, dtype=dtype)
        self._of_layer = self.pool.unbind(1)
        self.slot_of_block = torch.zeros(1, dtype=torch.int32, device=self.pool.device)

    def prepare(self, num_blocks: int, caches: Iterable[Tensor] = ()) -> None:
        """Make the table; once, before a step is captured that stays.

        Before that there is but block 0, which all rows read while a cache is being sized. From here on neither the
        table nor the pool changes its address, so that captured steps see what is filled in.

        Args:
            caches: of every layer, [num_blocks, ...] or [2, num_blocks, ...].

        Raises:
            ValueError: a cache is cut finer than blocks are given out, so that rows would read others' memories.
        """
        for cache in caches:
            if num_blocks not in cache.shape[:2]:
                raise ValueError(
                    f"a cache of {num_blocks} blocks has shape {tuple(cache.shape)}; choose an attention backend that "
                    "leaves blocks whole"
                )
        self.slot_of_block = torch.zeros(num_blocks, dtype=torch.int32, device=self.pool.device)

    def fill(self, slots: Sequence[int], blocks: Sequence[int], contents: Sequence[Tensor | None]) -> None:
        """Give slots to the requests whose first blocks these are, with B [L, d, r] on the host, or zeros.

        The host waits for nothing: B in pinned memory is still on its way while a step's kernels are launched.
        """
        named = torch.tensor([blocks, slots], dtype=torch.int64, device="cpu", pin_memory=self.pool.is_cuda)
        of_these, owners = named.to(self.pool.device, non_blocking=True)
        self.slot_of_block[of_these] = owners.int()
        for slot, content in zip(slots, contents, strict=True):
            if content is None:
                self.pool[slot].zero_()
            else:
                self.pool[slot].copy_(content, non_blocking=True)

    def slots_of(self, block_table: Tensor) -> Tensor:
        """Slots [B] of requests with these blocks [B, at most so many]; block 0 is nobody's."""
        return self.slot_of_block.index_select(0, block_table[:, 0])

    def moved(self, layer: int, down_and_projected: Tensor, rows: Rows | None) -> Tensor:
        """y + B p of rows [N, d + r] that hold y and p; rows of nobody give y."""
        pool = self._of_layer[layer]
        if rows is None or not rows.num_rows:
            return down_and_projected[:, : pool.shape[1]]
        if rows.num_rows == len(down_and_projected):
            return cms_delta_projected(down_and_projected, pool, rows.slots, rows.starts)
        done = cms_delta_projected(down_and_projected[: rows.num_rows], pool, rows.slots, rows.starts)
        return torch.cat([done, down_and_projected[rows.num_rows :, : pool.shape[1]]])
