"""How commit's kernels are launched: block shapes by problem size, which compile for sm_90 without spills."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import LinearState
from hope_kernels.titans_commit.commit_kernel import commit_kernel, due_kernel


@dataclass(frozen=True)
class CommitBlocks:
    """Columns of the matrix at a time, warps of a program, programs on one multiprocessor."""

    columns: int
    warps: int
    programs: int


def commit_blocks(size: int, chunk: int) -> CommitBlocks:
    """The table. ``size``: D; ``chunk``: C."""
    columns = min(32, size)
    if size == 128 and chunk > 16:
        return CommitBlocks(columns=columns, warps=8, programs=2)
    return CommitBlocks(columns=columns, warps=4, programs=4)


def launch_commit(state: LinearState, slots: Tensor | None, blocks: CommitBlocks | None = None) -> None:
    """``titans_commit`` on the kernels; arguments have been checked."""
    num_slots, heads, size, _ = state.matrix.shape
    chunk = state.ring_k.shape[2]
    batch = num_slots if slots is None else len(slots)
    due = torch.empty(batch + 1, dtype=torch.int32, device=state.matrix.device)
    due_kernel[(1,)](
        slots,
        state.position,
        due,
        state.position.stride(0),
        num_slots,
        batch,
        C=chunk,
        BATCH=triton.next_power_of_2(batch),
        num_warps=4,
    )
    blocks = blocks or commit_blocks(size, chunk)
    commit_kernel[(min(batch * heads, blocks.programs * multiprocessors(due.device)),)](
        due,
        *state.tensors().values(),
        state.matrix.stride(0),
        state.ring_k.stride(0),
        state.ring_gate.stride(0),
        state.position.stride(0),
        H=heads,
        D=size,
        C=chunk,
        ROWS=max(16, triton.next_power_of_2(chunk)),
        COLUMNS=blocks.columns,
        num_warps=blocks.warps,
    )


def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
