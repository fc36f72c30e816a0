"""How the delta's kernels are launched: block shapes by problem size, chosen offline on an H200."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.cms_delta.decode_kernel import decode_kernel, project_kernel
from hope_kernels.cms_delta.ragged_kernel import backward_kernel, ragged_kernel
from hope_kernels.cms_delta.sum_kernel import sum_kernel


@dataclass(frozen=True)
class DecodeBlocks:
    """Bytes of a delta a program reads, its warps, and the columns of x that one program projects."""

    tile_bytes: int
    warps: int
    span: int
    depth: int


@dataclass(frozen=True)
class RaggedBlocks:
    """Rows and columns of a tile of y, and warps."""

    rows: int
    out: int
    warps: int


@dataclass(frozen=True)
class SumBlocks:
    """Columns of the gradient a program owns, rows it takes at a time and how many loads run ahead, and warps."""

    out: int
    rows: int
    stages: int
    warps: int


def decode_blocks(d_in: int, wide: bool) -> DecodeBlocks:
    """The table for one row a sequence. ``wide``: the rows are fp32."""
    depth = 32 if wide else 256
    return DecodeBlocks(tile_bytes=32768, warps=4, span=triton.cdiv(d_in, 8 * depth) * depth, depth=depth)


@cache
def ragged_blocks(wide: bool) -> RaggedBlocks:
    """The table for runs of rows. ``wide``: an operand is fp32."""
    return RaggedBlocks(rows=32, out=64, warps=4) if wide else RaggedBlocks(rows=64, out=128, warps=4)


def sum_blocks(wide: bool, rank: int) -> SumBlocks:
    """The table for sums over runs. ``wide``: the rows are fp32, whose products must not be pipelined."""
    if wide:
        return SumBlocks(out=64 if rank <= 32 else 32, rows=32, stages=1, warps=4)
    return SumBlocks(out=128 if rank <= 32 else 64, rows=64, stages=4, warps=4)


def padded(rank: int) -> int:
    """``rank`` as a dot takes it: a power of two, at least 16."""
    return max(16, 1 << (rank - 1).bit_length())


def multiplies_as_is(a: Tensor, b: Tensor) -> bool:
    """Whether both hold one 16-bit type that the tensor cores take; Triton's interpreter has none."""
    return a.dtype is b.dtype and a.element_size() == 2 and not triton.knobs.runtime.interpret


def launch_decode(
    y: Tensor, x: Tensor, delta: Tensor, projection: Tensor, slots: Tensor | None, blocks: DecodeBlocks | None = None
) -> None:
    """One row a sequence, in place on y; arguments have been checked."""
    rows, d_in = x.shape
    d_out, rank = delta.shape[1:]
    wide = padded(rank)
    same = multiplies_as_is(x, projection)
    blocks = blocks or decode_blocks(d_in, not same)
    x = x if x.stride(1) == 1 else x.contiguous()
    parts = triton.cdiv(d_in, blocks.span)
    partial = torch.empty(parts, rows, wide, dtype=torch.float32, device=x.device)
    overlap = {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
    project_kernel[(triton.cdiv(rows, 16), parts)](
        x,
        projection.contiguous(),
        partial,
        rows,
        x.stride(0),
        D_IN=d_in,
        RANK=rank,
        R=wide,
        ROWS=16,
        DEPTH=blocks.depth,
        SPAN=blocks.span,
        SAME=same,
        OVERLAP=bool(overlap),
        num_warps=4,
    )
    fits = int(triton.next_power_of_2(d_out))
    out = min(fits, max(16, blocks.tile_bytes // (wide * delta.element_size())))
    decode_kernel[(rows * triton.cdiv(d_out, out),)](
        y,
        partial,
        delta,
        slots,
        rows,
        y.stride(0),
        delta.stride(0),
        len(delta),
        D_OUT=d_out,
        RANK=rank,
        R=wide,
        PARTS=parts,
        OUT=out,
        HAS_SLOTS=slots is not None,
        OVERLAP=bool(overlap),
        num_warps=blocks.warps,
        **overlap,
    )


def launch_ragged(
    y: Tensor,
    projected: Tensor,
    delta: Tensor,
    slots: Tensor | None,
    cu_seqlens: Tensor,
    blocks: RaggedBlocks | None = None,
) -> None:
    """Runs of rows, in place on y; projected: x A^T, [N, r] contiguous."""
    rows, d_out = y.shape
    count, rank = len(cu_seqlens) - 1, delta.shape[2]
    same = multiplies_as_is(projected, delta)
    blocks = blocks or ragged_blocks(not same)
    ragged_kernel[((rows // blocks.rows + count) * triton.cdiv(d_out, blocks.out),)](
        y,
        projected,
        delta,
        slots,
        cu_seqlens,
        count,
        rows,
        count.bit_length(),
        y.stride(0),
        delta.stride(0),
        len(delta),
        D_OUT=d_out,
        RANK=rank,
        R=padded(rank),
        ROWS=blocks.rows,
        OUT=blocks.out,
        HAS_SLOTS=slots is not None,
        SAME=same,
        num_warps=blocks.warps,
    )


def launch_backward(grad: Tensor, delta: Tensor, slots: Tensor | None, cu_seqlens: Tensor) -> Tensor:
    """[N, r] fp32: grad B of each row's own B, zero without one. grad: [N, d_out]."""
    rows, d_out = grad.shape
    count, rank = len(cu_seqlens) - 1, delta.shape[2]
    same = multiplies_as_is(grad, delta)
    tile, depth = (64, 64) if same else (32, 32)
    tiles = rows // tile + count
    # Few rows leave most of a device idle unless d_out is shared out too.
    parts = min(triton.cdiv(d_out, depth), max(1, 512 // tiles))
    span = triton.cdiv(triton.cdiv(d_out, parts), depth) * depth
    parts = triton.cdiv(d_out, span)
    partial = torch.zeros(parts, rows, rank, dtype=torch.float32, device=grad.device)
    backward_kernel[(tiles, parts)](
        grad,
        partial,
        delta,
        slots,
        cu_seqlens,
        count,
        rows,
        count.bit_length(),
        grad.stride(0),
        delta.stride(0),
        len(delta),
        D_OUT=d_out,
        RANK=rank,
        R=padded(rank),
        ROWS=tile,
        DEPTH=depth,
        SPAN=span,
        STAGES=3 if same else 1,
        HAS_SLOTS=slots is not None,
        SAME=same,
        num_warps=4,
    )
    return partial.sum(0) if parts > 1 else partial[0]


def launch_sum(
    grad: Tensor, projected: Tensor, slots: Tensor | None, cu_seqlens: Tensor, num_slots: int, dtype: torch.dtype
) -> Tensor:
    """[B, d_out, r] in ``dtype``: sum over each run's rows of grad projected^T. projected: [N, r] contiguous."""
    rows, d_out = grad.shape
    count, rank = len(cu_seqlens) - 1, projected.shape[1]
    same = multiplies_as_is(grad, projected)
    blocks = sum_blocks(not same, rank)
    sums = torch.empty(count, d_out, rank, dtype=dtype, device=grad.device)
    sum_kernel[(count * triton.cdiv(d_out, blocks.out),)](
        grad,
        projected,
        cu_seqlens,
        slots,
        sums,
        rows,
        grad.stride(0),
        num_slots,
        D_OUT=d_out,
        RANK=rank,
        R=padded(rank),
        OUT=blocks.out,
        ROWS=blocks.rows,
        STAGES=blocks.stages,
        HAS_SLOTS=slots is not None,
        SAME=same,
        num_warps=blocks.warps,
    )
    return sums
