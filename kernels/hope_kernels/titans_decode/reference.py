"""One token of every sequence in plain torch: one read of each matrix, one row appended to each ring."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.arguments import require
from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.pool import in_use, put, take, weights_in, working_dtype
from hope_kernels.titans_chunk.reference import log_alpha, project
from hope_kernels.titans_commit.reference import close_open_row


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
    q = F.normalize(q, dim=-1)
    reads = [_read_and_close(clock, x, q) for clock in clocks]
    k, v, eta, alpha = (part.squeeze(2) for part in project(x[:, :, None], reads[0][0][:, :, None], weights, rule))
    learned = reads[-1][1]
    if rule.causal:
        memory = clocks[-1]
        decay = _log_decay(memory)[..., None]
        seen = (decay - memory.ring_gate[..., 1]).exp() * (q[:, :, None] @ memory.ring_k.mT)[:, :, 0]
        learned = decay.exp() * learned - (seen[:, :, None] @ memory.ring_w)[:, :, 0]
    for clock in clocks:
        _append(clock, k, v, eta, alpha)
    return ((q + learned)[:, :, None] @ weights.memory.mT)[:, :, 0]


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
    rows, used = in_use(slots, len(x), x)
    dtype = working_dtype(x)
    batch = tuple(take(clock, used, dtype) for clock in clocks)
    for number, (clock, size) in enumerate(zip(batch, rule.chunk_sizes, strict=True)):
        full = used[(clock.position >= size).any(1)]
        require(not len(full), f"clocks[{number}]'s ring in slots", full.tolist(), "committed before the next token")
    out = torch.zeros_like(x)
    weights = weights_in(weights, dtype)
    out[rows] = titans_decode_reference(x[rows].to(dtype), q[rows].to(dtype), weights, rule, batch).to(x.dtype)
    for clock, new in zip(clocks, batch, strict=True):
        put(clock, used, new)
    return out


def _read_and_close(clock: LinearState, x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """x @ matrix and q @ matrix, [B, H, D] each, while the ring's open row is closed with the same pass."""
    last = (clock.position.long() - 1).clamp(min=0)[..., None, None].expand(-1, -1, 1, x.shape[-1])
    p = clock.ring_w.gather(2, last)[:, :, 0]
    reads = torch.stack([x, q, p], -2) @ clock.matrix
    clock.ring_w.copy_(close_open_row(clock, reads[..., 2, :]).ring_w)
    return reads[..., 0, :], reads[..., 1, :]


def _log_decay(clock: LinearState) -> Tensor:
    """[B, H]: log of the decay since the chunk's start."""
    at = clock.position.long()[..., None]
    return clock.ring_gate[..., 1].gather(2, (at - 1).clamp(min=0)).masked_fill(at == 0, 0.0)[..., 0]


def _append(clock: LinearState, k: Tensor, v: Tensor, eta: Tensor, alpha: Tensor) -> None:
    """One open row more."""
    decay = _log_decay(clock)
    opened = eta[..., None] * (decay.exp()[..., None] * k + k - v)
    gate = torch.stack([eta, decay + log_alpha(alpha)], -1)
    at = clock.position.long()[..., None, None]
    for ring, row in ((clock.ring_k, k), (clock.ring_w, opened), (clock.ring_gate, gate)):
        ring.scatter_(2, at.expand(-1, -1, 1, row.shape[-1]), row[:, :, None].to(ring.dtype))
    clock.position.add_(1)
