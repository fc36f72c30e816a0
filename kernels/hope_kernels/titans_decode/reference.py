"""One token of every sequence in plain torch: one read of each matrix, one row appended to each ring."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.arguments import require
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.pool import in_use, put_rings, take, weights_in, working_dtype
from hope_kernels.spans import spanned
from hope_kernels.titans_chunk.reference import log_alpha
from hope_kernels.titans_decode.one_slot import decode_one_slot, normalized


def titans_decode_reference(
    x: Tensor, q: Tensor, weights: LinearWeights, rule: TitansRule, clocks: tuple[LinearState, ...]
) -> Tensor:
    """One token of B sequences, each at its own place in its chunk; no ring may be full (commit first).

    The same numbers as ``titans_chunk_reference`` with T = 1, but the clocks change in place, and each matrix
    is read once: the products with x, with q and with the ring's open row share the pass.

    Args:
        x, q: [B, H, D]; the query comes before its L2 norm.
        weights, rule, clocks: as for ``titans_chunk_reference``.

    Returns:
        o: [B, H, D].

    Source: arXiv 2512.24695, Eqs 83-93.
    """
    heads = [_Heads(clock, x, q) for clock in clocks]
    k, v, eta, alpha = _project(x + heads[0].read(0), weights, rule)
    memory = heads[-1]
    learned = memory.causal_read() if rule.causal else memory.read(1)
    for clock in heads:
        clock.append(k, v, eta, alpha)
    return _by_head(F.normalize(q, dim=-1) + learned, weights.memory.mT)


def titans_decode_slots_reference(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    clocks: tuple[LinearState, ...],
    slots: Tensor | None,
) -> Tensor:
    """The same on slots of a pool, computed in fp32 whatever the pool's dtype; arguments as ``titans_decode``.

    Raises:
        ValueError: a ring is full.
    """
    dtype = working_dtype(x)
    learns = torch.is_grad_enabled() and (x.requires_grad or q.requires_grad)
    if len(clocks) == 1 and weights.key.dtype is dtype is x.dtype and _is_in(clocks[0], dtype) and not learns:
        return _slot_by_slot(x, q, weights, rule, clocks[0], slots)
    rows, used = in_use(slots, len(x), x)
    batch = tuple(take(clock, used, dtype) for clock in clocks)
    _require_room(batch, rule, used)
    out = torch.zeros_like(x)
    weights = weights_in(weights, dtype)
    out[rows] = titans_decode_reference(x[rows].to(dtype), q[rows].to(dtype), weights, rule, batch).to(x.dtype)
    for clock, new in zip(clocks, batch, strict=True):
        # The matrix stays as it was until the chunk ends.
        put_rings(clock, used, new)
    return out


def _slot_by_slot(
    x: Tensor, q: Tensor, weights: LinearWeights, rule: TitansRule, clock: LinearState, slots: Tensor | None
) -> Tensor:
    """In the pool's own tensors: on a CPU that costs less than gathering the slots, and nobody meets a neighbour."""
    named = range(len(x)) if slots is None else slots.tolist()
    padding = slots is not None
    views = [None if padding and not slot else clock.slot(slot) for slot in named]
    # A list of a slot's own numbers is no operation of torch, as an index into the pool would be.
    places = [0 if slot is None else slot.position.tolist()[0] for slot in views]
    full = [slot for slot, place in zip(named, places, strict=True) if place >= rule.chunk_size]
    require(not full, "clocks[0]'s ring in slots", full, "committed before the next token")
    rows = zip(x[:, :, None].unbind(0), normalized(q)[:, :, None].unbind(0), views, places, strict=True)
    found = [
        torch.zeros_like(row) if slot is None else decode_one_slot(row, query, weights, rule, slot, place)
        for row, query, slot, place in rows
    ]
    return (found[0] if len(found) == 1 else torch.stack(found)).view(x.shape)


def _is_in(clock: LinearState, dtype: torch.dtype) -> bool:
    return clock.matrix.dtype is dtype and clock.ring_k.dtype is dtype


def _require_room(clocks: tuple[LinearState, ...], rule: TitansRule, used: Tensor) -> None:
    for number, (clock, size) in enumerate(zip(clocks, rule.chunk_sizes, strict=True)):
        full = used[(clock.position >= size).any(1)]
        require(not len(full), f"clocks[{number}]'s ring in slots", full.tolist(), "committed before the next token")


class _Heads:
    """One clock's state with sequences and heads as one axis N = B H; making it closes every ring's open row.

    Rows of a ring from ``position`` on are zero, so they add nothing and need no mask; that holds for an empty
    ring's open row, too, and for the log decay before a chunk's first row (the ring's last row, by index -1).
    """

    def __init__(self, clock: LinearState, x: Tensor, q: Tensor) -> None:
        self._shape, self._position = x.shape, clock.position
        self._k, self._w, self._gate = (t.flatten(0, 1) for t in (clock.ring_k, clock.ring_w, clock.ring_gate))
        self._at = clock.position.flatten().long()
        self._n = torch.arange(len(self._at), device=x.device)
        last = (self._at - 1).clamp_min(0)
        q = F.normalize(q.flatten(0, 1), dim=-1)
        opened, key = self._w[self._n, last], self._k[self._n, last]
        self._reads = torch.stack([x.flatten(0, 1), q, opened], 1) @ clock.matrix.flatten(0, 1)
        log_decay = self._gate[..., 1]
        before, now = log_decay[self._n, last - 1], log_decay[self._n, last]
        self._log_decay = now
        shrunk = torch.exp(torch.stack([before, now], 1)[..., None] - log_decay[:, None])
        self._mix = shrunk * (torch.stack([key, q], 1) @ self._k.mT)
        self._mix[self._n, 0, last] = 0.0
        eta = self._gate[self._n, last, :1]
        row = self._reads[:, 2] + opened - eta * (before.exp()[:, None] * key + (self._mix[:, :1] @ self._w)[:, 0])
        self._w[self._n, last] = row.to(self._w.dtype)

    def read(self, vector: int) -> Tensor:
        """[B, H, D]: the snapshot's product with x (0) or q (1)."""
        return self._reads[:, vector].view(self._shape)

    def causal_read(self) -> Tensor:
        """[B, H, D]: what q reads through every row written so far."""
        learned = self._log_decay.exp()[:, None] * self._reads[:, 1] - (self._mix[:, 1:] @ self._w)[:, 0]
        return learned.view(self._shape)

    def append(self, k: Tensor, v: Tensor, eta: Tensor, alpha: Tensor) -> None:
        """One open row more."""
        k, v = k.flatten(0, 1), v.flatten(0, 1)
        eta, alpha = eta.flatten()[:, None], alpha.flatten()
        decay = self._log_decay
        self._k[self._n, self._at] = k.to(self._k.dtype)
        self._w[self._n, self._at] = (eta * (decay.exp()[:, None] * k + k - v)).to(self._w.dtype)
        self._gate[self._n, self._at] = torch.cat([eta, (decay + log_alpha(alpha))[:, None]], 1).to(self._gate.dtype)
        self._position.add_(1)


@spanned("project")
def _project(seen: Tensor, weights: LinearWeights, rule: TitansRule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ``project`` for one token [B, H, D]: k, v: [B, H, D]; eta, alpha: [B, H]."""
    size = seen.shape[-1]
    projected = _by_head(seen, weights.joined)
    k, v = F.normalize(projected[..., : 2 * size].reshape(*seen.shape[:-1], 2, size), dim=-1).unbind(-2)
    gates = torch.sigmoid(projected[..., 2 * size :] + weights.gate_bias)
    return k, v, rule.eta_max * gates[..., 0], rule.alpha_min + (1 - rule.alpha_min) * gates[..., 1]


def _by_head(x: Tensor, matrices: Tensor) -> Tensor:
    """[B, H, D] @ [H, D, E] to [B, H, E]; heads lead, so that no matrix is copied per sequence."""
    return (x.transpose(0, 1) @ matrices).transpose(0, 1)
