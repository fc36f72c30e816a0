"""How commit's kernels for MLP memories are launched: block shapes by problem size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import MlpWeights
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_commit.launch import multiprocessors, tries
from hope_kernels.titans_commit.mlp_commit_kernel import mlp_commit_kernel
from hope_kernels.titans_commit.mlp_empty_kernel import mlp_empty_kernel
from hope_kernels.titans_commit.mlp_solve_kernel import mlp_solve_kernel


@dataclass(frozen=True)
class MlpCommitBlocks:
    """Rows of a tile, hidden units at a time, warps, programs a multiprocessor that share out the work.

    registers: the most a thread may take; None leaves it to the compiler.
    """

    rows: int
    units: int
    warps: int
    programs: int
    registers: int | None = None


def mlp_commit_blocks(
    size: int, hidden: int, chunk: int, dtype: torch.dtype, ring_dtype: torch.dtype
) -> MlpCommitBlocks:
    """The table. ``size``: D; ``hidden``: F; ``chunk``: C; the types of matrices and rings."""
    # Between 16 rows and the 64 of a warp group's units nothing is gained.
    rows, units = 16 if chunk <= 16 else 64, min(hidden, 64)
    if ring_dtype is torch.float32 and size == 128:
        return MlpCommitBlocks(rows=rows, units=units, warps=8, programs=4)
    if rows == 16:
        return MlpCommitBlocks(rows=rows, units=units, warps=4, programs=3 if dtype is torch.float32 else 4)
    if dtype is ring_dtype is torch.float16 and size == 128 and hidden <= 128:
        return MlpCommitBlocks(rows=rows, units=units, warps=4, programs=3, registers=168)
    return MlpCommitBlocks(rows=rows, units=units, warps=4, programs=2)


def launch_mlp_commit(
    weights: MlpWeights, state: MlpState, slots: Tensor | None, blocks: MlpCommitBlocks | None = None
) -> None:
    """``mlp_commit`` on the kernels; arguments have been checked."""
    num_slots, heads, _, hidden, size = state.inner.shape
    chunk, device = state.ring_k.shape[2], state.inner.device
    pairs = heads * (num_slots if slots is None else len(slots))
    if not pairs:
        return
    blocks = blocks or mlp_commit_blocks(size, hidden, chunk, state.inner.dtype, state.ring_k.dtype)
    overlap = {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
    shape = {"H": heads, "D": size, "C": chunk, "HAS_SLOTS": slots is not None, "OVERLAP": bool(overlap)}
    exact = state.ring_k.dtype is torch.float32
    room = partial(torch.empty, device=device, dtype=torch.float16)
    width = 2 if exact else 1
    strides = (state.ring_k.stride(0), state.ring_gate.stride(0), state.position.stride(0))
    programs = min(pairs, 2 * multiprocessors(device))
    solved = room(pairs, width, blocks.rows, blocks.rows)
    mlp_solve_kernel[(programs,)](
        slots, state.ring_k, state.ring_gate, state.position, solved,
        room(programs, 2, blocks.rows, blocks.rows, dtype=torch.float32), *strides, pairs, num_slots,
        **shape, ROWS=blocks.rows, TRIES=tries(pairs, programs), EXACT=exact, num_warps=4, **overlap,
    )  # fmt: skip
    programs = min(5 * pairs, blocks.programs * multiprocessors(device))
    scratch = (room(programs, 4 * width, blocks.rows, size), room(programs, 3 * width, blocks.rows, hidden))
    mlp_commit_kernel[(programs,)](
        slots, state.inner, state.outer, state.gate_outer, state.ring_k, state.ring_v, state.ring_gate, state.position,
        weights.inner.contiguous(), weights.outer.contiguous(), weights.gate_outer.contiguous(), solved, *scratch,
        state.inner.stride(0), state.outer.stride(0), state.gate_outer.stride(0), *strides, pairs, num_slots,
        **shape, F=hidden, ROWS=blocks.rows, UNITS=blocks.units, TRIES=tries(5 * pairs, programs), EXACT=exact,
        num_warps=blocks.warps, maxnreg=blocks.registers, **overlap,
    )  # fmt: skip
    programs = min(pairs, 16 * multiprocessors(device))
    mlp_empty_kernel[(programs,)](
        slots, state.ring_k, state.ring_v, state.ring_e, state.ring_u, state.ring_a, state.ring_gate, state.position,
        strides[0], state.ring_u.stride(0), *strides[1:], pairs, num_slots,
        **shape, F=hidden, BLOCK=1024, TRIES=tries(pairs, programs), num_warps=4, **overlap,
    )  # fmt: skip
