"""Kernels compiled once for all sizes of batches: only axes that differ among buckets are left open.

A kernel whose every axis is open reads and writes single numbers, since nothing is known to divide its rows; with the
model's own sizes fixed it moves whole vectors, and sums a row in one go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hope_serve.training.parts.passes.pointwise import PLAIN_KERNELS, Kernels

BLOCK = 32
"""Shares are seen in blocks of so many keys where these divide them, so that a kernel knows what divides a row."""
_OPEN = {1: (), 2: (0,), 3: (0, 1), 4: (0, 2), 5: (0, 2, 3)}
"""Axes of rows, tokens and blocks of keys, by how many axes there are: [d], [n, V], [N, T, d], [N, H, T, e], shares."""
_OF_SHARES = frozenset({"shares", "shares_gradient", "shares_adjoint", "shares_second"})


def fused() -> Kernels:
    """Every kernel compiled on its first use."""
    names = Kernels._fields
    return Kernels(*map(_compiled, names, PLAIN_KERNELS))


def _compiled(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    of_shares = name in _OF_SHARES
    whole = torch.compile(_of_blocks(function) if of_shares else function, fullgraph=True)

    def run(*arguments: Any) -> Any:
        return whole(*(_opened(a, of_shares) if isinstance(a, Tensor) else a for a in arguments))

    return run


def _of_blocks(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def of_blocks(*arguments: Any) -> Any:
        return function(*(a.flatten(3) if isinstance(a, Tensor) and a.dim() == 5 else a for a in arguments))

    return of_blocks


def _opened(x: Tensor, of_shares: bool) -> Tensor:
    if of_shares and x.shape[-1] % BLOCK == 0:
        x = x.view(*x.shape[:-1], -1, BLOCK)
    integers = x.dim() == 1 and not x.is_floating_point()
    for axis in (0,) if integers else _OPEN[x.dim()]:
        torch._dynamo.maybe_mark_dynamic(x, axis)
    return x
