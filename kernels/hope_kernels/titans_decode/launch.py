"""How decode's kernels are launched: block shapes by problem size, chosen offline on an H200."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_decode.project_kernel import project_kernel
from hope_kernels.titans_decode.read_kernel import read_kernel

# The interpreter multiplies tiles of bfloat16 wrongly.
DOT_DTYPES = {torch.float16} if triton.knobs.runtime.interpret else {torch.float16, torch.bfloat16}
FEW = 64  # programs: most multiprocessors would have none
SOME = 2**15  # programs times head size: one to four for every multiprocessor, where waiting costs more than bytes do


@dataclass(frozen=True)
class ReadBlocks:
    """Block shape of the read: a tile is [wide, deep, columns], and ring_rows of the ring are taken at a time.

    prefetch: bytes of each head's matrix that are asked for before the read may begin. ring_ahead: whether the ring is
    asked for before the matrix is read; with many programs its bytes would come from memory twice.
    """

    wide: int
    deep: int
    columns: int
    ring_rows: int
    stages: int
    warps: int
    prefetch: int = 0
    ring_ahead: bool = False


def read_blocks(programs: int, size: int, element_bytes: int) -> ReadBlocks:
    """The table. ``programs``: sequences times heads; ``size``: D; ``element_bytes`` of the matrix.

    Few heads are spread over the card by columns; many keep whole rows, a warp each.
    """
    whole = size * size * element_bytes
    some = programs * size <= SOME
    ahead = min(8192, whole // 4)
    if programs <= FEW and size > 32:
        if element_bytes == 2:
            few = ReadBlocks(wide=1, deep=size, columns=min(64, size), ring_rows=32, stages=3, warps=4)
        elif size == 64:
            few = ReadBlocks(wide=8, deep=8, columns=64, ring_rows=32, stages=3, warps=4)
        else:
            few = ReadBlocks(wide=size // 16, deep=16, columns=32, ring_rows=32, stages=3, warps=2)
        return replace(few, prefetch=whole, ring_ahead=True)
    if some and size == 128:
        if element_bytes == 2:
            return ReadBlocks(wide=1, deep=128, columns=64, ring_rows=32, stages=3, warps=4, prefetch=ahead)
        return ReadBlocks(wide=8, deep=8, columns=64, ring_rows=32, stages=3, warps=1, prefetch=ahead)
    if some and size == 64:
        wide, deep = (1, 64) if element_bytes == 2 else (8, 8)
        return ReadBlocks(
            wide=wide, deep=deep, columns=64, ring_rows=32, stages=3, warps=1, prefetch=whole // 2, ring_ahead=True
        )
    if element_bytes == 2:
        wide, deep, stages = 1, min(64, size), 2
    else:
        wide, stages = max(1, 128 // size), 3
        deep = min(16 if size == 128 else 8, size // wide)
    return ReadBlocks(wide=wide, deep=deep, columns=size, ring_rows=16, stages=stages, warps=1, prefetch=ahead)


@dataclass(frozen=True)
class ProjectBlocks:
    """Sequences that share one load of the weights (a dot takes at least 16), and columns of these at a time.

    part = D takes all of them before the read has ended.
    """

    rows: int
    part: int
    stages: int
    warps: int


def project_blocks(batch: int, size: int, element_bytes: int) -> ProjectBlocks:
    """The table. ``element_bytes`` of the weights."""
    if element_bytes == 4:
        return ProjectBlocks(rows=16, part=16, stages=2, warps=4)
    if batch < 128:
        return ProjectBlocks(rows=16, part=size, stages=1, warps=8 if size == 128 else 4)
    return ProjectBlocks(rows=64 if size == 64 else 32, part=min(32, size), stages=3, warps=4)


def launch_decode(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    state: LinearState,
    slots: Tensor | None,
    blocks: ReadBlocks | None = None,
    project: ProjectBlocks | None = None,
) -> Tensor:
    """``titans_decode`` on the kernels; arguments have been checked."""
    batch, heads, size = x.shape
    x, q = dense_heads(x), dense_heads(q)
    seen = torch.empty(batch, heads, 8, size, dtype=torch.float32, device=x.device)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    blocks = blocks or read_blocks(batch * heads, size, state.matrix.element_size())
    shape = {"H": heads, "D": size, "C": rule.chunk_size, "HAS_SLOTS": slots is not None}
    dots = {
        "MATRIX_DOTS": state.matrix.dtype in DOT_DTYPES and size >= 32,
        "RING_DOTS": state.ring_k.dtype in DOT_DTYPES,
    }
    overlap = {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
    strides = (state.ring_k.stride(0), state.ring_gate.stride(0), state.position.stride(0), len(state.matrix))
    read_kernel[(batch * heads, size // blocks.columns)](
        x,
        q,
        slots,
        *state.tensors().values(),
        seen,
        x.stride(0),
        q.stride(0),
        state.matrix.stride(0),
        *strides,
        **shape,
        CAUSAL=rule.causal,
        WIDE=blocks.wide,
        DEEP=blocks.deep,
        COLUMNS=blocks.columns,
        STAGES=blocks.stages,
        **dots,
        RING_ROWS=max(16 if dots["RING_DOTS"] else 1, min(blocks.ring_rows, triton.next_power_of_2(rule.chunk_size))),
        OVERLAP=bool(overlap),
        RING_AHEAD=blocks.ring_ahead and bool(overlap),
        PREFETCH=blocks.prefetch // (size // blocks.columns) // 512 * 512 // state.matrix.element_size(),
        num_warps=blocks.warps,
        **overlap,
    )
    project = project or project_blocks(batch, size, weights.key.element_size())
    project_kernel[(triton.cdiv(batch, project.rows), heads, 2)](
        seen,
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
        ROWS=project.rows,
        SPLIT=weights.key.element_size() == 2,
        PART=project.part,
        STAGES=project.stages,
        CLOSE=blocks.columns < size,
        OVERLAP=bool(overlap),
        num_warps=project.warps,
        **overlap,
    )
    return out


def dense_heads(rows: Tensor) -> Tensor:
    """Rows [B, H, D] whose heads lie behind each other; rows themselves may be slices of wider ones."""
    _, heads, size = rows.shape
    return rows if rows.stride()[1:] == (size, 1) or (heads == 1 and rows.stride(2) == 1) else rows.contiguous()
