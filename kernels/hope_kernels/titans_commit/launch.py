"""How commit's kernel is launched: block shapes by problem size, which compile for sm_90 without spills."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import LinearState
from hope_kernels.titans_commit.commit_kernel import commit_kernel


@dataclass(frozen=True)
class CommitBlocks:
    """Columns of the matrix at a time and how many loads run ahead, warps, programs a multiprocessor."""

    columns: int
    stages: int
    warps: int
    programs: int


def commit_blocks(size: int, chunk: int, dtype: torch.dtype, ring_dtype: torch.dtype) -> CommitBlocks:
    """The table. ``size``: D; ``chunk``: C; the types of matrix and ring."""
    columns, few = min(32, size), chunk <= 16
    if multiplies_narrowly(dtype, ring_dtype):
        if size == 128:
            wide = CommitBlocks(columns=64, stages=1, warps=2, programs=16)
            return wide if few else CommitBlocks(columns=32, stages=3, warps=2, programs=16)
        if few:
            return CommitBlocks(columns=columns, stages=3, warps=1, programs=16)
        return CommitBlocks(columns=columns, stages=2, warps=2, programs=32)
    # On the units of four warps a product's operand comes from registers, which loads must not run ahead of.
    warps = 8 if size == 128 and not few and ring_dtype is torch.float32 else 4
    return CommitBlocks(columns=columns, stages=1, warps=warps, programs=16)


def launch_commit(state: LinearState, slots: Tensor | None, blocks: CommitBlocks | None = None) -> None:
    """``titans_commit`` on the kernels; arguments have been checked."""
    num_slots, heads, size, _ = state.matrix.shape
    chunk = state.ring_k.shape[2]
    items = heads * (num_slots if slots is None else len(slots))
    if not items:
        return
    interpreted = triton.knobs.runtime.interpret
    types = (state.matrix.dtype, state.ring_k.dtype)
    blocks = blocks or commit_blocks(size, chunk, *types)
    programs = min(items, blocks.programs * multiprocessors(state.matrix.device))
    commit_kernel[(programs,)](
        slots,
        *state.tensors().values(),
        state.matrix.stride(0),
        state.ring_k.stride(0),
        state.ring_gate.stride(0),
        state.position.stride(0),
        items,
        num_slots,
        H=heads,
        D=size,
        C=chunk,
        ROWS=max(16, triton.next_power_of_2(chunk)),
        COLUMNS=blocks.columns,
        STAGES=blocks.stages,
        TRIES=tries(items, programs),
        HAS_SLOTS=slots is not None,
        NARROW=multiplies_narrowly(*types),
        OVERLAP=not interpreted,
        num_warps=blocks.warps,
        **({} if interpreted else {"launch_pdl": True}),
    )


def multiplies_narrowly(dtype: torch.dtype, ring_dtype: torch.dtype) -> bool:
    """Whether matrix and ring are both of fp16, so that their products need no wider units."""
    return dtype is ring_dtype is torch.float16


def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def tries(items: int, programs: int) -> int:
    """How many items a program looks at where ``programs`` share them out, rounded up to a power of two."""
    return int(triton.next_power_of_2(triton.cdiv(items, programs)))
