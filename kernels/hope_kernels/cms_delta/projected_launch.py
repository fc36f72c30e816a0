"""How the kernels of rows that come with their projections are launched.

Every layer of a prompt's step comes here, so whole numbers are rounded in plain Python: Triton's own cdiv and
next_power_of_2 cost the host 4 us a call.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor

from hope_kernels.cms_delta.launch import RaggedBlocks, multiplies_as_is, padded, ragged_blocks
from hope_kernels.cms_delta.projected_kernel import projected_decode_kernel, projected_ragged_kernel

MANY = 64  # rows: from here on every multiprocessor has bytes enough in flight with whole tiles


def tile_bytes(rows: int) -> int:
    """Bytes of a delta that one program reads."""
    return 32768 if rows >= MANY else 8192


def launch_projected_decode(
    y_and_p: Tensor, delta: Tensor, slots: Tensor, activation: str, remembers: Tensor | None
) -> Tensor:
    """One row a sequence; arguments have been checked."""
    rows, (d_out, rank) = len(y_and_p), delta.shape[1:]
    y = torch.empty(rows, d_out, dtype=y_and_p.dtype, device=y_and_p.device)
    wide = padded(rank)
    out = min(1 << (d_out - 1).bit_length(), max(16, tile_bytes(rows) // (wide * delta.element_size())))
    overlap = {} if triton.knobs.runtime.interpret else {"launch_pdl": True}
    projected_decode_kernel[(rows * -(-d_out // out),)](
        y_and_p,
        delta,
        slots,
        remembers if remembers is None else remembers.view(torch.uint8),
        y,
        y_and_p.stride(0),
        delta.stride(0),
        len(delta),
        D_OUT=d_out,
        RANK=rank,
        R=wide,
        OUT=out,
        SILU=activation == "silu",
        HAS_FLAGS=remembers is not None,
        OVERLAP=bool(overlap),
        num_warps=4,
        **overlap,
    )
    return y


def launch_projected_ragged(
    y_and_p: Tensor,
    delta: Tensor,
    slots: Tensor,
    starts: Tensor,
    activation: str,
    remembers: Tensor | None,
    blocks: RaggedBlocks | None = None,
) -> Tensor:
    """Runs of rows; arguments have been checked."""
    rows, (d_out, rank), count = len(y_and_p), delta.shape[1:], len(slots)
    y = torch.empty(rows, d_out, dtype=y_and_p.dtype, device=y_and_p.device)
    same = multiplies_as_is(y_and_p, delta)
    blocks = blocks or ragged_blocks(not same)
    projected_ragged_kernel[((rows // blocks.rows + count) * -(-d_out // blocks.out),)](
        y_and_p,
        delta,
        slots,
        remembers if remembers is None else remembers.view(torch.uint8),
        starts,
        y,
        count,
        rows,
        count.bit_length(),
        y_and_p.stride(0),
        delta.stride(0),
        len(delta),
        D_OUT=d_out,
        RANK=rank,
        R=padded(rank),
        ROWS=blocks.rows,
        OUT=blocks.out,
        SAME=same,
        SILU=activation == "silu",
        HAS_FLAGS=remembers is not None,
        num_warps=blocks.warps,
    )
    return y
