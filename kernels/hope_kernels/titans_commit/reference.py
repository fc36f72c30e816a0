"""The end of a chunk in plain torch: the ring's rows become one write of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.layout import LinearState


def close_open_row(state: LinearState, read: Tensor | None = None) -> LinearState:
    """Finish the ring's open row; a state whose ring is empty comes back unchanged in value.

    With p the open row, z = p - beta k its part that no memory touches and n its index:
    ``U_n = matrix p + z - sum_{s<n} beta (k_n . k_s) U_s`` (one line of the forward substitution).

    Args:
        state: tensors over [B].
        read: [B, H, D], ``matrix @ p`` when the caller has it already.
    """
    last = (state.position.long() - 1).clamp(min=0)[:, None, None, None]
    index = last.expand(-1, *state.ring_k.shape[1:2], 1, state.ring_k.shape[-1])
    k = state.ring_k.gather(2, index)
    p = state.ring_u.gather(2, index)
    beta = state.ring_gate[..., :1, None]
    if read is None:
        read = (state.matrix @ p.mT)[..., 0]
    before = torch.arange(state.ring_k.shape[2], device=k.device) < last
    mix = (beta * (k @ state.ring_k.mT)).masked_fill(~before, 0.0)
    row = read[..., None, :] + p - beta * k - mix @ state.ring_u
    row = torch.where(state.position[:, None, None, None] > 0, row, p)
    return state.with_(ring_u=state.ring_u.scatter(2, index, row))


def titans_commit_reference(state: LinearState) -> LinearState:
    """Write a full ring into the matrix and start an empty one: ``matrix <- g (matrix - U^T K)``.

    Args:
        state: tensors over [B], every position equal to the chunk size.

    Source: arXiv 2512.24695, Eqs 90-93 for a whole chunk; the one-matrix form of titans_chunk/README.md.
    """
    closed = close_open_row(state)
    decay = state.ring_gate[..., 1, None, None]
    gate = torch.zeros_like(state.ring_gate)
    gate[..., 1] = 1.0
    return LinearState(
        matrix=decay * (state.matrix - closed.ring_u.mT @ closed.ring_k),
        ring_k=torch.zeros_like(state.ring_k),
        ring_u=torch.zeros_like(state.ring_u),
        ring_gate=gate,
        position=torch.zeros_like(state.position),
    )
