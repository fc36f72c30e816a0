"""How attention for decoding is launched: blocks by head size and bytes of a number, programs by the rows there are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.attention_decode.join_kernel import join_kernel
from hope_kernels.attention_decode.part_kernel import part_kernel

PART = 128  # positions that are summed together; part of what a result's bits depend on
PROGRAMS = 2048  # enough to fill a card, several a multiprocessor
LEAST = 4  # programs a sequence and key head, so that one long sequence among many short ones is not one program's
CHUNK = 32  # parts that are joined at a time


@dataclass(frozen=True, kw_only=True)
class PartBlocks:
    """Positions of a step, a divisor of ``PART``; steps whose loads run ahead; warps."""

    block: int
    stages: int
    warps: int


def part_blocks(size: int, itemsize: int) -> PartBlocks:
    """The table: two or three programs' steps ahead fit a multiprocessor's shared memory."""
    if itemsize == 4:
        return PartBlocks(block=32 if size > 64 else 64, stages=3, warps=4)
    return PartBlocks(block=64, stages=3 if size > 64 else 4, warps=4)


def launch_attention_decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: Tensor,
    scale: float,
    blocks: PartBlocks | None = None,
    programs: int | None = None,
) -> Tensor:
    """``attention_decode`` on the kernels; arguments have been checked. ``programs``: a sequence and key head."""
    (count, heads, size), (num_slots, positions, key_heads, _) = query.shape, keys.shape
    query = query if query.stride(2) == 1 else query.contiguous()
    parts, wide = triton.cdiv(positions, PART), max(16, int(triton.next_power_of_2(size)))
    blocks = blocks or part_blocks(size, query.itemsize)
    programs = min(parts, programs or max(LEAST, triton.cdiv(PROGRAMS, count * key_heads)))
    mixed = torch.empty(count, heads, parts, size, dtype=torch.float32, device=query.device)
    shares = torch.empty(count, heads, parts, 2, dtype=torch.float32, device=query.device)
    y = torch.empty(count, heads, size, dtype=query.dtype, device=query.device)
    overlap = _overlap()
    part_kernel[(programs * count * key_heads,)](
        query,
        keys,
        values,
        slots,
        lengths,
        mixed,
        shares,
        count,
        programs,
        parts,
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
        WIDE=wide,
        BLOCK=blocks.block,
        EACH=PART // blocks.block,
        STAGES=blocks.stages,
        SAME=query.itemsize == 2,
        OVERLAP=bool(overlap),
        num_warps=blocks.warps,
        **overlap,
    )
    join_kernel[(count * heads,)](
        mixed,
        shares,
        slots,
        lengths,
        y,
        parts,
        positions,
        num_slots,
        HEADS=heads,
        D=size,
        WIDE=wide,
        PART=PART,
        CHUNK=CHUNK,
        OVERLAP=bool(overlap),
        num_warps=4,
        **overlap,
    )
    return y


def _overlap() -> dict[str, bool]:
    return {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
