"""How attention for runs of tokens is launched: tiles by head size and bytes of a number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.attention_prefill.prefill_kernel import prefill_kernel


@dataclass(frozen=True, kw_only=True)
class PrefillBlocks:
    """Rows of a tile, of which each token takes a group; positions of a step, part of what a result's bits depend on;
    steps whose loads run ahead; warps.

    64 rows go with two warps, others with fewer rows: the units of four warps together, which the compiler takes from
    64 rows on, would have one operand from registers inside a pipelined loop here, which the assembler that triton
    brings is known to get wrong.
    """

    rows: int
    block: int
    stages: int
    warps: int


def prefill_blocks(size: int, itemsize: int) -> PrefillBlocks:
    """The table: the most rows whose sums stay in registers."""
    if itemsize == 4:
        return PrefillBlocks(rows=16 if size > 64 else 32, block=32, stages=2, warps=4)
    if size in (16, 32, 64):
        return PrefillBlocks(rows=64, block=32, stages=3, warps=2)
    return PrefillBlocks(rows=32, block=64, stages=3, warps=4)


def launch_attention_prefill(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    starts: Tensor,
    pasts: Tensor,
    scale: float,
    blocks: PrefillBlocks | None = None,
) -> Tensor:
    """``attention_prefill`` on the kernel; arguments have been checked."""
    (rows, heads, size), (num_slots, positions, key_heads, _) = query.shape, keys.shape
    query, count = query if query.stride(2) == 1 else query.contiguous(), len(slots)
    blocks = blocks or prefill_blocks(size, query.itemsize)
    tokens = blocks.rows // (heads // key_heads)
    y = torch.empty(rows, heads, size, dtype=query.dtype, device=query.device)
    prefill_kernel[((rows // tokens + count) * key_heads,)](
        query,
        keys,
        values,
        slots,
        starts,
        pasts,
        y,
        count,
        rows,
        count.bit_length(),
        positions,
        num_slots,
        scale * math.log2(math.e),
        query.stride(0),
        query.stride(1),
        keys.stride(0),
        values.stride(0),
        HEADS=key_heads,
        GROUP=heads // key_heads,
        D=size,
        WIDE=max(16, int(triton.next_power_of_2(size))),
        TOKENS=tokens,
        ROWS=blocks.rows,
        BLOCK=blocks.block,
        STAGES=blocks.stages,
        SAME=query.itemsize == 2,
        num_warps=blocks.warps,
    )
    return y
