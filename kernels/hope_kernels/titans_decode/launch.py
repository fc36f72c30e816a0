"""How decode's kernels are launched: block shapes by problem size, chosen offline on an H200."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_decode.project_kernel import project_kernel
from hope_kernels.titans_decode.read_kernel import read_kernel

FEW = 256  # programs: less than two for each multiprocessor


@dataclass(frozen=True)
class ReadBlocks:
    """Block shape of the read: a tile is [wide, deep, columns], and ring_rows of the ring are taken at a time."""

    wide: int
    deep: int
    columns: int
    ring_rows: int
    stages: int
    warps: int


def read_blocks(programs: int, size: int, element_bytes: int) -> ReadBlocks:
    """The table. ``programs``: sequences times heads; ``size``: D; ``element_bytes`` of the matrix.

    Few heads are spread over the card by columns; many keep whole rows.
    """
    if programs <= FEW and size > 32:
        return ReadBlocks(wide=size // 4, deep=2, columns=32, ring_rows=32, stages=3, warps=4)
    wide = max(2, 512 // (size * element_bytes)) * 4
    return ReadBlocks(wide=min(wide, size // 2), deep=2, columns=size, ring_rows=8, stages=3, warps=4)


def project_rows(batch: int) -> int:
    """Sequences that share one load of the weights; a dot takes at least 16."""
    return 16 if batch <= 256 else 32 if batch <= 512 else 64


def launch_decode(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    state: LinearState,
    slots: Tensor | None,
    blocks: ReadBlocks | None = None,
) -> Tensor:
    """``titans_decode`` on the kernels; arguments have been checked."""
    batch, heads, size = x.shape
    x, q = x.contiguous(), q.contiguous()
    seen = torch.empty(3, batch, heads, size, dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    blocks = blocks or read_blocks(batch * heads, size, state.matrix.element_size())
    shape = {"H": heads, "D": size, "C": rule.chunk_size, "HAS_SLOTS": slots is not None}
    overlap = {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
    strides = (state.ring_k.stride(0), state.ring_gate.stride(0), state.position.stride(0), len(state.matrix))
    read_kernel[(batch * heads, size // blocks.columns)](
        x,
        q,
        slots,
        *state.tensors().values(),
        *seen,
        state.matrix.stride(0),
        *strides,
        **shape,
        CAUSAL=rule.causal,
        WIDE=blocks.wide,
        DEEP=blocks.deep,
        COLUMNS=blocks.columns,
        RING_ROWS=blocks.ring_rows,
        STAGES=blocks.stages,
        OVERLAP=bool(overlap),
        num_warps=blocks.warps,
    )
    rows = project_rows(batch)
    project_kernel[(triton.cdiv(batch, rows), heads, 2)](
        *seen,
        slots,
        weights.key.contiguous(),
        weights.value.contiguous(),
        weights.memory.contiguous(),
        weights.gates.contiguous(),
        weights.gate_bias.contiguous(),
        state.ring_k,
        state.ring_w,
        state.ring_gate,
        state.position,
        out,
        *strides,
        batch,
        rule.eta_max,
        rule.alpha_min,
        **shape,
        ROWS=rows,
        SPLIT=weights.key.element_size() == 2,
        OVERLAP=bool(overlap),
        num_warps=8 if size == 128 else 4,
        **overlap,
    )
    return out
