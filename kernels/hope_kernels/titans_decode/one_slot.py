"""One token of one sequence in the pool's own tensors: the reference's numbers in few operations, for a CPU.

A sequence's heads stand at one place p of their rings, so every index is a view, nothing is gathered and rows that
are still empty are not computed with. What a sequence gets depends on nobody beside it, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.spans import spanned
from hope_kernels.titans_chunk.reference import log_alpha

LEAST_NORM = 1e-12


def decode_one_slot(
    x: Tensor, q: Tensor, weights: LinearWeights, rule: TitansRule, clock: LinearState, slot: int, place: int
) -> Tensor:
    """Arguments as ``titans_decode``, of one sequence and one clock; x, q: [H, D], in the pool's dtype.

    Args:
        place: rows in the ring, below the chunk size.

    Returns:
        o: [H, D]; the slot's ring has one open row more.
    """
    matrix, ring_k, ring_w, gate = (t[slot] for t in (clock.matrix, clock.ring_k, clock.ring_w, clock.ring_gate))
    query = _normalized(q)
    if place:
        seen, learned, decay = _read(x, query, matrix, ring_k[:, :place], ring_w[:, :place], gate[:, :place], rule)
    else:
        seen, learned = torch.bmm(torch.stack([x, query], 1), matrix).unbind(1)
        decay = torch.zeros_like(seen[:, 0])
    k, written, row = _project(x + seen, decay, weights, rule)
    ring_k[:, place] = k
    ring_w[:, place] = written
    gate[:, place] = row
    clock.position[slot] += 1
    return torch.bmm(weights.memory, (query + learned)[:, :, None])[:, :, 0]


def _read(
    x: Tensor, query: Tensor, matrix: Tensor, keys: Tensor, writes: Tensor, gate: Tensor, rule: TitansRule
) -> tuple[Tensor, Tensor, Tensor]:
    """Close the open row, the last; what x and q read, [H, D] each, and the decay so far, [H]."""
    last = keys.shape[1] - 1
    opened, key, log_decay = writes[:, last], keys[:, last], gate[:, :, 1]
    now = log_decay[:, last:]
    before = log_decay[:, last - 1 : last] if last else torch.zeros_like(now)
    seen, asked, own = torch.bmm(torch.stack([x, query, opened], 1), matrix).unbind(1)
    shrunk = torch.exp(torch.stack([before, now], 1) - log_decay[:, None])
    mix = torch.bmm(torch.stack([key, query], 1), keys.mT).mul_(shrunk)
    inner, outer = torch.bmm(mix[:, :, :last], writes[:, :last]).unbind(1)
    opened.add_(own).sub_(gate[:, last, :1] * torch.addcmul(inner, before.exp(), key))
    if not rule.causal:
        return seen, asked, now[:, 0]
    return seen, now.exp() * asked - torch.addcmul(outer, mix[:, 1, last:], opened), now[:, 0]


@spanned("project")
def _project(seen: Tensor, decay: Tensor, weights: LinearWeights, rule: TitansRule) -> tuple[Tensor, Tensor, Tensor]:
    """The new row: its key [H, D], what it writes [H, D], and its rate and log decay [H, 2]."""
    heads, size = seen.shape
    projected = torch.bmm(seen[:, None], weights.joined)[:, 0]
    k, v = _normalized(projected[:, : 2 * size].view(heads, 2, size)).unbind(1)
    gates = torch.sigmoid(projected[:, 2 * size :] + weights.gate_bias)
    eta = rule.eta_max * gates[:, :1]
    alpha = rule.alpha_min + (1 - rule.alpha_min) * gates[:, 1]
    written = eta * (torch.addcmul(k, decay.exp()[:, None], k) - v)
    return k, written, torch.stack([eta[:, 0], decay + log_alpha(alpha)], 1)


def _normalized(rows: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / norm.clamp_min_(LEAST_NORM)
