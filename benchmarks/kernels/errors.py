"""How far a result is from fp64, and memory that shows what was never written."""

from __future__ import annotations

import torch
from torch import Tensor


def relative(given: Tensor, expected: Tensor) -> float:
    """|given - expected| / |expected|; NaN counts as infinitely wrong."""
    error = ((given.double() - expected.double()).norm() / expected.double().norm()).item()
    return error if error == error else float("inf")


def poison(like: Tensor) -> None:
    """NaN in the memory that the allocator hands out next for a tensor such as ``like``."""
    torch.full_like(like, torch.nan)
