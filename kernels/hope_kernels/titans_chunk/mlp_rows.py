"""A ring of MLP memories as writes, and the state on slots as the chunk form takes it and back."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_kernels.layout import MEMORIES, RESIDUAL, Matrices, MemoriesState, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_chunk.reference import log_alpha
from hope_kernels.titans_chunk.reference_memories import initial_matrices, rank_one_factors


def mlp_state_of(memories: MemoriesState, weights: MlpWeights, rule: TitansRule) -> MlpState:
    """The same memories as slots keep them; ``memories`` holds all five and what they learned (retention delta).

    As decode leaves it: the last row open, rows from the position on zero.
    """
    inner = torch.stack([memories.matrices[name][0] for name in MEMORIES], 2)
    outer = torch.stack([memories.matrices[name][1] for name in RESIDUAL], 2)
    gate_outer = torch.cat([memories.matrices[name][1] for name in ("eta", "alpha")], 2)
    eta, alpha = memories.ring_gate.unbind(-1)
    there = torch.arange(eta.shape[2], device=eta.device) < memories.position[:, None, None]
    decay = torch.where(there, log_alpha(alpha), 0.0).cumsum(-1)
    units = memories.ring_k.new_zeros(*eta.shape, inner.shape[3])
    state = MlpState(
        inner=inner,
        outer=outer,
        gate_outer=gate_outer,
        ring_k=memories.ring_k.clone(),
        ring_v=memories.ring_v.clone(),
        ring_e=torch.zeros_like(memories.ring_k),
        ring_u=units,
        ring_a=units.clone(),
        ring_gate=torch.stack([eta, decay], -1).masked_fill(~there[..., None], 0.0),
        position=memories.position[:, None].expand(-1, eta.shape[1]).contiguous(),
    )
    if rule.causal:
        learned = state.learned()
        whole = whole_matrices(initial_matrices(weights), learned)
        close_rows(state, Rows(state), learned["memory"], whole["memory"])
    return state


def memories_of(state: MlpState) -> MemoriesState:
    """The same memories as the chunk form takes them."""
    rows = Rows(state)
    alpha = (rows.decay - rows.decay_before).exp().masked_fill(~rows.there, 0.0)
    return MemoriesState(
        matrices={name: tuple(m.clone() for m in matrices) for name, matrices in state.learned().items()},
        ring_k=rows.k,
        ring_v=rows.v,
        ring_gate=torch.stack([rows.eta, alpha], -1),
        position=state.position[:, 0].clone(),
    )


def whole_matrices(initial: dict[str, Matrices], learned: dict[str, Matrices]) -> dict[str, Matrices]:
    """What each memory started from and what it learned, together."""
    return {name: tuple(a + b for a, b in zip(initial[name], learned[name], strict=True)) for name in MEMORIES}


class Rows:
    """A ring's rows as writes; those from the position on write nothing. Decays are logs."""

    def __init__(self, state: MlpState) -> None:
        count = state.position.long()[..., None]
        self.there = torch.arange(state.ring_k.shape[2], device=count.device) < count
        self.k = self.kept(state.ring_k)
        self.v = self.kept(state.ring_v)
        self.eta = state.ring_gate[..., 0].masked_fill(~self.there, 0.0)
        last = state.ring_gate[..., 1].gather(2, (count - 1).clamp(min=0))
        self.last_decay = last.masked_fill(count == 0, 0.0)
        self.decay = torch.where(self.there, state.ring_gate[..., 1], self.last_decay)
        self.decay_before = torch.cat([torch.zeros_like(self.last_decay), self.decay[..., :-1]], -1)

    def kept(self, ring: Tensor) -> Tensor:
        """A ring without what lies behind the position."""
        return ring.masked_fill(~self.there[..., None], 0.0)

    def written(self, name: str, learned: Matrices, whole: Matrices) -> list[tuple[Tensor, Tensor]]:
        """(w, x) of W2 and of W1 with ``W_s = alpha_s W_{s-1} - w_s x_s^T``; W1 has no delta rule of its own."""
        (slope, k), (error, hidden) = rank_one_factors(name, self.k, self.v, whole)
        eta = self.eta[..., None]
        earlier = torch.ones(k.shape[2], k.shape[2], dtype=torch.bool, device=k.device).tril(-1)
        shrunk = (self.decay_before[..., None] - self.decay[..., None, :]).masked_fill(~earlier, -torch.inf).exp()
        free = eta * (self.decay_before.exp()[..., None] * (k @ learned[0].mT) + slope)
        mix = eta * (k @ k.mT) * shrunk
        w: Tensor = torch.linalg.solve_triangular(mix, free, upper=False, unitriangular=True)
        return [(w, k), (eta * error, hidden)]


def close_rows(state: MlpState, rows: Rows, learned: Matrices, whole: Matrices) -> None:
    """Put what all rows but the open one write into the memory that is read into the ring."""
    (u, _), (_, a) = rows.written("memory", learned, whole)
    e = rank_one_factors("memory", rows.k, rows.v, whole)[1][0]
    closed = rows.there[..., 1:, None]
    for ring, row in ((state.ring_u, u), (state.ring_a, a), (state.ring_e, e)):
        ring[:, :, :-1] = torch.where(closed, row[:, :, :-1], ring[:, :, :-1])


def close_open_row(state: MlpState, rows: Rows, learned: Matrices, whole: Matrices) -> None:
    """Put what the last row writes into the memory that is read into the ring; the rows before it are there."""
    count = state.position.long()[..., None]
    last = (count - 1).clamp(min=0)

    def at_last(values: Tensor) -> Tensor:
        return values.gather(2, last[..., None].expand(-1, -1, 1, values.shape[-1]))

    k, v, eta, before = (at_last(z) for z in (rows.k, rows.v, rows.eta[..., None], rows.decay_before[..., None]))
    (slope, _), (e, a) = rank_one_factors("memory", k, v, whole)
    earlier = torch.arange(rows.k.shape[2], device=k.device) < last
    shrunk = (before - rows.decay[..., None, :]).masked_fill(~earlier[..., None, :], -torch.inf).exp()
    u = eta * (before.exp() * (k @ learned[0].mT) + slope - ((k @ rows.k.mT) * shrunk) @ rows.kept(state.ring_u))
    for ring, row in ((state.ring_u, u), (state.ring_a, a), (state.ring_e, e)):
        index = last[..., None].expand(-1, -1, 1, ring.shape[-1])
        ring.scatter_(2, index, torch.where(count[..., None] > 0, row, ring.gather(2, index)))
