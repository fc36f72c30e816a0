"""How the chunk kernels are launched: warps by problem size, the least that compile for sm_90 without spills."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_chunk.read_kernel import read_kernel
from hope_kernels.titans_chunk.ring_kernel import pack_kernel
from hope_kernels.titans_chunk.write_kernel import write_kernel

# Rows of a tile on warp group units; no chunk is longer.
ROWS = 64


@dataclass(frozen=True)
class ChunkWarps:
    """Warps of a program that writes, and of one that reads."""

    write: int
    read: int


@dataclass(frozen=True)
class Chunks:
    """What the writing kernel leaves for the reading one, chunk by chunk; G chunks at most, T rows each.

    span: [G, 3] int32 (rows in the ring before, first token, last token + 1); keys, writes: [G, H, T, D] fp16, the
    writes over eta_max; frozen: [G, H, D, D] fp16, output first; gates: [G, H, 7, T].
    """

    span: Tensor
    keys: Tensor
    writes: Tensor
    frozen: Tensor
    gates: Tensor


def chunk_warps(size: int) -> ChunkWarps:
    """The table. ``size``: D."""
    return ChunkWarps(write=8 if size == 128 else 4, read=8 if size == 128 else 4)


def tile_rows(size: int, chunk: int) -> int:
    """T, rows of a chunk's tiles.

    From D = 64 on products run on Hopper's warp group units, where tiles of 16 and 32 columns came out wrong on an H200
    (README.md): all chunks take 64 rows there, whatever their length.
    """
    return ROWS if size >= 64 else max(16, triton.next_power_of_2(chunk))


def launch_chunk(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    state: LinearState,
    slots: Tensor | None,
    starts: Tensor | None,
    warps: ChunkWarps | None = None,
) -> tuple[Tensor, Chunks]:
    """``titans_chunk`` on the kernels, and what its backward needs; arguments have been checked."""
    warps = warps or chunk_warps(x.shape[-1])
    chunks = _write(dense_heads(narrow(x)), weights, rule, state, slots, starts, warps.write)
    count, heads, rows, size = chunks.keys.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    q = dense_heads(q)
    read_kernel[(count, heads)](
        q,
        narrow(weights.memory).contiguous(),
        chunks.span,
        chunks.keys,
        chunks.writes,
        chunks.frozen,
        chunks.gates,
        out,
        rule.eta_max,
        H=heads,
        D=size,
        T=rows,
        Q_ROW=q.stride(0),
        CAUSAL=rule.causal,
        num_warps=warps.read,
    )
    return out, chunks


def _write(
    x: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    state: LinearState,
    slots: Tensor | None,
    starts: Tensor | None,
    warps: int,
) -> Chunks:
    tokens, heads, size = x.shape
    batch = len(state.matrix) if slots is None else len(slots)
    rows = tile_rows(size, rule.chunk_size)
    count = tokens // rule.chunk_size + 2 * batch
    half = partial(torch.empty, dtype=torch.float16, device=x.device)
    chunks = Chunks(
        span=torch.empty(count, 3, dtype=torch.int32, device=x.device),
        keys=half(count, heads, rows, size),
        writes=half(count, heads, rows, size),
        frozen=half(count, heads, size, size),
        gates=torch.empty(count, heads, 7, rows, device=x.device),
    )
    carried = torch.empty(batch * heads, size, size, device=x.device)
    strides = (
        state.matrix.stride(0),
        state.ring_k.stride(0),
        state.ring_gate.stride(0),
        state.position.stride(0),
        len(state.matrix),
    )
    shape = {"H": heads, "D": size, "C": rule.chunk_size, "T": rows}
    write_kernel[(batch * heads,)](
        x,
        starts,
        slots,
        narrow(weights.key).contiguous(),
        narrow(weights.value).contiguous(),
        narrow(weights.gates).contiguous(),
        weights.gate_bias.contiguous(),
        *state.tensors().values(),
        *vars(chunks).values(),
        torch.empty(batch * heads, 2, rows, rows, device=x.device),
        carried,
        *strides,
        tokens // batch,
        rule.eta_max,
        rule.alpha_min,
        **shape,
        X_ROW=x.stride(0),
        num_warps=warps,
    )
    pack_kernel[(batch * heads,)](
        starts,
        slots,
        *state.tensors().values(),
        chunks.keys,
        chunks.writes,
        chunks.gates,
        carried,
        *strides,
        tokens // batch,
        rule.eta_max,
        **shape,
        num_warps=4,
    )
    return chunks


def narrow(values: Tensor) -> Tensor:
    """In 16 bits, as the products take them."""
    return values if values.element_size() == 2 else values.half()


def dense_heads(rows: Tensor) -> Tensor:
    """[N, H, D] whose rows may lie apart, as halves of a wider product do, but whose heads lie behind each other."""
    return rows if rows.stride()[1:] == (rows.shape[2], 1) else rows.contiguous()
