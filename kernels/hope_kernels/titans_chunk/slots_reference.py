"""The chunk form on runs of a pool's slots, in plain torch: sequences one after the other."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from hope_kernels.arguments import require
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.pool import in_use, put, take, weights_in, working_dtype
from hope_kernels.titans_chunk.reference import titans_chunk_reference


def titans_chunk_slots_reference(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    clocks: tuple[LinearState, ...],
    slots: Tensor | None,
    starts: Tensor | None,
) -> Tensor:
    """As ``titans_chunk``, computed in fp32 whatever the pool's dtype; it waits for the host.

    Raises:
        ValueError: a ring is full.
    """
    count = len(clocks[0].matrix) if slots is None else len(slots)
    bounds = bounds_of(starts, count, x)
    dtype = working_dtype(x)
    weights = weights_in(weights, dtype)
    runs = [torch.zeros_like(x[begin:end]) for begin, end in pairwise(bounds)]
    for row, slot in zip(*in_use(slots, count, x), strict=True):
        b, tokens = int(row), slice(bounds[row], bounds[row + 1])
        before = tuple(take(clock, slot[None], dtype) for clock in clocks)
        positions = tuple(int(clock.position[0, 0]) for clock in before)
        for number, (at, size) in enumerate(zip(positions, rule.chunk_sizes, strict=True)):
            require(at < size, f"clocks[{number}]'s ring in slot {int(slot)}", "full", "committed before more tokens")
        x_BHTD, q_BHTD = (z[tokens].to(dtype).transpose(0, 1)[None] for z in (x, q))
        out, after = titans_chunk_reference(x_BHTD, q_BHTD, weights, rule, before, positions=positions)
        runs[b] = out[0].transpose(0, 1).to(x.dtype)
        for clock, new in zip(clocks, after, strict=True):
            put(clock, slot[None], new.with_tensors({name: t.detach() for name, t in new.tensors().items()}))
    return torch.cat(runs)


def bounds_of(starts: Tensor | None, count: int, x: Tensor) -> list[int]:
    """Where runs begin and end, for the host: sequence b has rows bounds[b] to bounds[b + 1]."""
    bounds: list[int] = list(range(0, len(x) + 1, len(x) // count)) if starts is None else starts.tolist()
    return bounds
