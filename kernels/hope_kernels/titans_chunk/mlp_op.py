"""Chunk of MLP memories on slots: refuse what is wrong, then the reference; in torch on every device."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import torch
from torch import Tensor

from hope_kernels.arguments import (
    require,
    require_constant_weights,
    require_mlp_clock,
    require_mlp_weights,
    require_slots,
    require_starts,
)
from hope_kernels.layout import LinearState, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.pool import in_use, put, take, weights_in, working_dtype
from hope_kernels.titans_chunk.mlp_rows import memories_of, mlp_state_of
from hope_kernels.titans_chunk.reference_memories import titans_chunk_memories_reference
from hope_kernels.titans_chunk.slots_reference import bounds_of


def mlp_chunk(
    x: Tensor,
    q: Tensor,
    weights: MlpWeights,
    rule: TitansRule,
    clocks: tuple[LinearState | MlpState, ...],
    slots: Tensor | None,
    starts: Tensor | None,
) -> Tensor:
    """``titans_chunk`` for MLP memories, whose x and q have been checked.

    Raises:
        ValueError: an argument does not fit.
    """
    require_mlp_weights(weights, x)
    require_constant_weights(weights)
    state = require_mlp_clock(clocks, weights, rule)
    count = len(state.inner) if slots is None else len(slots)
    require(count > 0, "the number of sequences", count, "at least 1")
    require_slots(slots, count, len(state.inner), x)
    require_starts(starts, count, x)
    return mlp_chunk_slots_reference(x, q, weights, rule, state, slots, starts)


def mlp_chunk_slots_reference(
    x: Tensor,
    q: Tensor,
    weights: MlpWeights,
    rule: TitansRule,
    state: MlpState,
    slots: Tensor | None,
    starts: Tensor | None,
) -> Tensor:
    """Computed in fp32 whatever the pool's dtype; sequences at one place with as many tokens go together.

    Differentiable by x and q; what the sequences knew before is a constant of that gradient.

    Raises:
        ValueError: a ring is full.
    """
    dtype = working_dtype(x)
    weights = weights_in(weights, dtype)
    count = len(state.inner) if slots is None else len(slots)
    spans = list(pairwise(bounds_of(starts, count, x)))
    rows, used = in_use(slots, count, x)
    places = state.position[used].amax(1).tolist()
    full = [slot for slot, place in zip(used.tolist(), places, strict=True) if place >= rule.chunk_size]
    require(not full, "clocks[0]'s ring in slots", full, "committed before more tokens")
    alike: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for row, slot, place in zip(rows.tolist(), used.tolist(), places, strict=True):
        begin, end = spans[row]
        alike[place, end - begin].append((begin, slot))
    out = torch.zeros_like(x)
    for (place, length), members in alike.items():
        begins, chosen = torch.tensor(members, device=x.device).unbind(1)
        tokens = begins[:, None] + torch.arange(length, device=x.device)
        x_BHTD, q_BHTD = (z[tokens].to(dtype).transpose(1, 2) for z in (x, q))
        before = memories_of(take(state, chosen, dtype))
        o_BHTD, (after,) = titans_chunk_memories_reference(x_BHTD, q_BHTD, weights, rule, (before,), positions=(place,))
        out = out.index_copy(0, tokens.flatten(), o_BHTD.transpose(1, 2).flatten(0, 1).to(x.dtype))
        with torch.no_grad():
            put(state, chosen, mlp_state_of(after, weights, rule))
    return out
