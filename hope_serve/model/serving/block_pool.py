"""Memories of attention beside a cache that is somebody else's, who names its blocks: one pool, a row a slot."""

from __future__ import annotations

from collections.abc import Sequence
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
        self.slot_of_block = torch.zeros(0, dtype=torch.int32)

    def prepare(self, num_blocks: int) -> None:
        """Make the table; once, before a step is captured."""
        self.slot_of_block = torch.zeros(num_blocks, dtype=torch.int32, device=self.pool.device)

    def fill(self, slots: Sequence[int], blocks: Sequence[int], contents: Sequence[Tensor | None]) -> None:
        """Give slots to the requests whose first blocks these are, with B [L, d, r] on the host, or zeros."""
        for slot, content in zip(slots, contents, strict=True):
            if content is None:
                self.pool[slot].zero_()
            else:
                self.pool[slot].copy_(content, non_blocking=True)
        device = self.pool.device
        of_these = torch.tensor(blocks, dtype=torch.int64, device=device)
        self.slot_of_block[of_these] = torch.tensor(slots, dtype=torch.int32, device=device)

    def slots_of(self, block_table: Tensor) -> Tensor:
        """Slots [B] of requests with these blocks [B, at most so many]; block 0 is nobody's."""
        return self.slot_of_block[block_table[:, 0].long()]

    def moved(self, layer: int, down_and_projected: Tensor, rows: Rows | None) -> Tensor:
        """y + B p of rows [N, d + r] that hold y and p; rows of nobody give y."""
        count, width = rows.num_rows if rows else 0, self.pool.shape[2]
        rest = down_and_projected[count:, :width]
        if rows is None or not count:
            return rest
        done = cms_delta_projected(down_and_projected[:count], self.pool[:, layer], rows.slots, rows.starts)
        return torch.cat([done, rest]) if len(rest) else done
