"""The end of a chunk in plain torch: the ring's rows become one write of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.layout import LinearState
from hope_kernels.pool import in_use, put, take, working_dtype


def close_open_row(state: LinearState, read: Tensor | None = None) -> LinearState:
    """Finish the ring's open row; a state whose ring is empty comes back unchanged in value.

    With p the open row, n its index and g_s the decay after row s:
    ``w_n = p matrix + p - eta g_{n-1} k_n - eta sum_{s<n} (k_n . k_s) (g_{n-1} / g_s) w_s``.

    Args:
        state: tensors over [B].
        read: [B, H, D], ``p @ matrix`` when the caller has it already.
    """
    last = (state.position.long() - 1).clamp(min=0)[..., None]
    index = last[..., None].expand(-1, -1, 1, state.ring_k.shape[-1])
    k, p = state.ring_k.gather(2, index), state.ring_w.gather(2, index)
    eta = state.ring_gate[..., 0].gather(2, last)[..., None]
    decay = log_decay_before(state)[..., None]
    if read is None:
        read = (p @ state.matrix)[:, :, 0]
    rows = torch.arange(state.ring_k.shape[2], device=k.device)
    shrunk = (decay - state.ring_gate[..., 1]).masked_fill(rows >= last, -torch.inf).exp()
    mix = eta * (k @ state.ring_k.mT) * shrunk[..., None, :]
    row = read[..., None, :] + p - eta * decay[..., None].exp() * k - mix @ state.ring_w
    row = torch.where(state.position[..., None, None] > 0, row, p)
    return state.with_(ring_w=state.ring_w.scatter(2, index, row))


def log_decay_before(state: LinearState) -> Tensor:
    """[B, H]: log of the decay from the chunk's start to just before the open row."""
    last = state.position.long()[..., None] - 1
    before = state.ring_gate[..., 1].gather(2, (last - 1).clamp(min=0))
    return before.masked_fill(last < 1, 0.0)[..., 0]


def titans_commit_reference(state: LinearState) -> LinearState:
    """Write a full ring into the matrix and start an empty one: ``matrix <- g_C matrix - sum_s (g_C / g_s) k_s w_s^T``.

    Args:
        state: tensors over [B], every position equal to the chunk size.

    Source: arXiv 2512.24695, Eqs 90-93 for a whole chunk; the one-matrix form of titans_chunk/README.md.
    """
    closed = close_open_row(state)
    log_decay = state.ring_gate[..., 1]
    shrunk = (log_decay[..., -1:] - log_decay).exp()[..., None]
    return LinearState(
        matrix=log_decay[..., -1, None, None].exp() * state.matrix - closed.ring_k.mT @ (shrunk * closed.ring_w),
        ring_k=torch.zeros_like(state.ring_k),
        ring_w=torch.zeros_like(state.ring_w),
        ring_gate=torch.zeros_like(state.ring_gate),
        position=torch.zeros_like(state.position),
    )


def titans_commit_slots_reference(state: LinearState, slots: Tensor | None) -> None:
    """Commit those of ``slots`` whose ring is full, in place; arguments as ``titans_commit``."""
    count = len(state.matrix) if slots is None else len(slots)
    _, used = in_use(slots, count, state.matrix)
    full = used[state.position[used, 0] == state.ring_k.shape[2]]
    if len(full):
        put(state, full, titans_commit_reference(take(state, full, working_dtype(state.matrix))))
