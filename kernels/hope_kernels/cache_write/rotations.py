"""The angles of rotary positions, looked up rather than computed: a kernel's cosine is not everybody's."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.arguments import require, require_float


def rotation_tables(inverse_frequencies: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [positions, D / 2] in fp32 (fp64 for fp64), of position p times each frequency.

    Args:
        inverse_frequencies: [D / 2]: theta ** (-2 i / D), or what a checkpoint's scaling makes of it.
        positions: T; a D of 128 takes 512 bytes a position for both.

    Raises:
        ValueError: an argument does not fit.

    Source: arXiv 2104.09864.
    """
    require(inverse_frequencies.dim() == 1, "inverse_frequencies' shape", tuple(inverse_frequencies.shape), "[D / 2]")
    require_float("inverse_frequencies", inverse_frequencies, inverse_frequencies)
    require(positions > 0, "positions", positions, "at least 1")
    wide = torch.float64 if inverse_frequencies.dtype is torch.float64 else torch.float32
    at = torch.arange(positions, device=inverse_frequencies.device, dtype=wide)
    angles = at[:, None] * inverse_frequencies.to(wide)
    return angles.cos(), angles.sin()
