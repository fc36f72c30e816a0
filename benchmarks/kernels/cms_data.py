"""What the CMS benchmarks share: pools, rows and the bytes that must move."""

from __future__ import annotations

import torch
from hope_kernels.cms_update import LevelPools, Rows
from torch import Tensor

from benchmarks.kernels.bench import Sizes

BF16, F32 = torch.bfloat16, torch.float32


def sides(sizes: Sizes) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) of a level's two matrices."""
    return {"inner": (sizes.width, sizes.wide), "outer": (sizes.wide, sizes.width)}


def delta_inputs(rows: int, slots: int, side: tuple[int, int], rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, x, a pool whose null slot is NaN, and the projection; bf16."""
    d_in, d_out = side
    y, x = (torch.randn(rows, width, dtype=BF16) for width in (d_out, d_in))
    delta = torch.randn(slots, d_out, rank, dtype=BF16) / rank**0.5
    delta[0] = torch.nan
    return y, x, delta, torch.randn(rank, d_in, dtype=BF16) / d_in**0.5


def runs_of(lengths: list[int]) -> Tensor:
    """cu_seqlens."""
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def shuffled(count: int) -> Tensor:
    """Slots 1 to ``count`` in any order."""
    return torch.randperm(count).to(torch.int32) + 1


def update_inputs(
    sequences: int, tokens: int, d_out: int, rank: int, *, momentum: bool = False
) -> tuple[LevelPools, Rows]:
    """fp32 pools of one slot more than sequences, and bf16 rows."""
    pools = LevelPools(
        delta=torch.randn(sequences + 1, 1, d_out, rank),
        gradient=torch.randn(sequences + 1, 1, d_out, rank),
        momentum=torch.randn(sequences + 1, 1, d_out, rank) if momentum else None,
    )
    rows = Rows(
        grad=torch.randn(1, sequences * tokens, d_out, dtype=BF16),
        projected=torch.randn(1, sequences * tokens, rank, dtype=BF16),
        cu_seqlens=runs_of([tokens] * sequences),
    )
    return pools, rows


def update_floor(pools: LevelPools, rows: Rows) -> int:
    """Bytes that must move: the rows once, every fired pool once each way."""
    matrices = sum(2 * t[1:].numel() * t.element_size() for t in pools.tensors().values())
    return matrices + 2 * (rows.grad.numel() + rows.projected.numel())
