"""One token of one sequence in the pool's own tensors: the reference's numbers in few operations, for a CPU.

A sequence's heads stand at one place p of their rings, so every index is a view, nothing is gathered and rows that
are still empty are not computed with. What a sequence gets depends on nobody beside it, to the bit. On a CPU a step
with one sequence is as long as its list of operations: vectors are rows [H, 1, D] throughout, which every product
takes as they are, and sums are taken along by products.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.layout import LinearWeights, SlotViews, TitansRule
from hope_kernels.spans import spanned
from hope_kernels.titans_chunk.reference import log_alpha

LEAST_NORM = 1e-12


def decode_one_slot(
    x: Tensor, query: Tensor, weights: LinearWeights, rule: TitansRule, slot: SlotViews, place: int
) -> Tensor:
    """Arguments as ``titans_decode``, of one sequence and one clock; x and query, of unit length: [H, 1, D].

    Args:
        slot: of the clock's pool, in the dtype of x.
        place: rows in the ring, below the chunk size.

    Returns:
        o: [H, 1, D]; the slot's ring has one open row more.
    """
    if place:
        seen, found, left = _read(x, query, slot, place, causal=rule.causal)
        decay = slot.decay[:, place - 1 : place]
    else:
        rows = torch.cat([x, query], 1)
        seen, found = torch.baddbmm(rows, rows, slot.matrix).chunk(2, 1)
        decay = torch.zeros_like(slot.decay[:, :1])
        left = decay.exp()
    _append(seen, decay, left, weights, rule, slot, place)
    return torch.bmm(found, weights.memory.mT)


def _read(x: Tensor, query: Tensor, slot: SlotViews, place: int, *, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Close the open row, the last.

    Returns:
        x and query, each with what it reads, [H, 1, D]; and how much is left of the snapshot, [H, 1, 1].
    """
    last = place - 1
    key, opened = slot.keys[:, last:place], slot.writes[:, last:place]
    rows = torch.cat([key, query, x, opened], 1)
    # The key's own product is of no use, but costs less than to take the others apart from it.
    _, asked, seen, closing = torch.baddbmm(rows, rows, slot.matrix).chunk(4, 1)
    ends = slot.decay[:, last - 1 : place] if last else F.pad(slot.decay[:, :1], (0, 0, 1, 0))
    mix = torch.bmm(rows[:, :2], slot.key_columns[:, :, :place])
    mix.mul_(torch.sub(ends, slot.decay_row[:, :, :place]).exp_())
    older, newest = mix.split_with_sizes((last, 1), 2)
    inner, outer = torch.bmm(older, slot.writes[:, :last]).chunk(2, 1)
    before, left = ends.exp().chunk(2, 1)
    torch.addcmul(closing, slot.eta[:, last:place], torch.addcmul(inner, before, key), value=-1, out=opened)
    if not causal:
        return seen, asked, left
    return seen, torch.lerp(query, asked, left).sub_(torch.addcmul(outer, newest[:, 1:], opened)), left


@spanned("project")
def _append(
    seen: Tensor, decay: Tensor, left: Tensor, weights: LinearWeights, rule: TitansRule, slot: SlotViews, place: int
) -> None:
    """The new open row: its key, what it writes, its rate and its log decay."""
    heads, _, size = seen.shape
    new = slice(place, place + 1)
    projected, raw = torch.baddbmm(weights.joined_bias, seen, weights.joined).split_with_sizes((2 * size, 2), 2)
    k, v = normalized(projected.view(heads, 2, size)).chunk(2, 1)
    rate, retention = raw.sigmoid().chunk(2, 2)
    eta = torch.mul(rate, rule.eta_max, out=slot.eta[:, new])
    alpha = torch.rsub(retention, rule.alpha_min, alpha=rule.alpha_min - 1)
    torch.add(decay, log_alpha(alpha), out=slot.decay[:, new])
    torch.mul(torch.addcmul(k, left, k).sub_(v), eta, out=slot.writes[:, new])
    slot.keys[:, new].copy_(k)
    slot.position.add_(1)


def normalized(rows: Tensor) -> Tensor:
    """Rows [..., D] of unit length; zeros stay zeros."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / norm.clamp_min_(LEAST_NORM)
