"""One token of every sequence in plain torch: one read of each matrix, one row appended to each ring."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_chunk.reference import project


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
        rows = (q[:, :, None] @ memory.ring_k.mT) @ memory.ring_u
        learned = memory.ring_gate[..., 1:] * (learned - rows[:, :, 0])
    for clock in clocks:
        _append(clock, k, v, eta, alpha)
    return ((q + learned)[:, :, None] @ weights.memory.mT)[:, :, 0]


def _read_and_close(clock: LinearState, x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """matrix @ x and matrix @ q, [B, H, D] each, while the ring's open row is closed with the same pass."""
    rows = torch.arange(len(x), device=x.device)
    last = (clock.position.long() - 1).clamp(min=0)
    k, p, beta = clock.ring_k[rows, :, last], clock.ring_u[rows, :, last], clock.ring_gate[..., :1]
    reads = torch.stack([x, q, p], -2) @ clock.matrix.mT
    mix = beta[..., None] * (k[:, :, None] @ clock.ring_k.mT)
    mix[rows, :, 0, last] = 0.0  # the open row itself; later rows are zero
    closed = reads[..., 2, :] + p - beta * k - (mix @ clock.ring_u)[:, :, 0]
    clock.ring_u[rows, :, last] = torch.where(clock.position[:, None, None] > 0, closed, p)
    return reads[..., 0, :], reads[..., 1, :]


def _append(clock: LinearState, k: Tensor, v: Tensor, eta: Tensor, alpha: Tensor) -> None:
    """One open row more."""
    rows, at = torch.arange(len(k), device=k.device), clock.position.long()
    decay = clock.ring_gate[..., 1] * alpha
    beta = eta / alpha
    clock.ring_k[rows, :, at] = k
    clock.ring_u[rows, :, at] = beta[..., None] * k + (eta / decay)[..., None] * (k - v)
    clock.ring_gate.copy_(torch.stack([beta, decay], -1))
    clock.position.add_(1)
