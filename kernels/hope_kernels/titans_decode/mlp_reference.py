"""One token of every sequence through five MLP memories, and the chunk's end, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.layout import MEMORIES, RESIDUAL, MemoriesState, MlpWeights, TitansRule
from hope_kernels.titans_chunk.reference import log_alpha
from hope_kernels.titans_chunk.reference_memories import (
    Matrices,
    apply_memory,
    initial_matrices,
    rank_one_factors,
)
from hope_kernels.titans_decode.mlp_state import MlpState


def mlp_decode_reference(x: Tensor, q: Tensor, weights: MlpWeights, rule: TitansRule, state: MlpState) -> Tensor:
    """One token of B sequences, each at its own place in its chunk; the state changes in place.

    Args:
        x, q: [B, H, D]; the query comes before its L2 norm.
        weights, rule: the initial memories and the constants.
        state: over the B sequences; no ring may be full.

    Returns:
        o: [B, H, D].

    Source: arXiv 2512.24695, Eqs 83-93.
    """
    initial, learned = initial_matrices(weights), state.learned()
    whole = whole_matrices(initial, learned)
    x, q = x[:, :, None], F.normalize(q, dim=-1)[:, :, None]
    k = F.normalize(apply_memory(x, whole["key"], residual=True), dim=-1)
    v = F.normalize(apply_memory(x, whole["value"], residual=True), dim=-1)
    raw = torch.cat([apply_memory(x, whole[name], residual=False) for name in ("eta", "alpha")], -1)
    gates = torch.sigmoid(raw + weights.gate_bias[:, None])
    eta, alpha = rule.eta_max * gates[..., 0], rule.alpha_min + (1 - rule.alpha_min) * gates[..., 1]
    rows = Rows(state)
    if rule.causal:
        output = _read_causally(q, rows, initial["memory"], learned["memory"], whole["memory"], state)
    else:
        output = apply_memory(q, whole["memory"], residual=True)
    _append(state, k, v, eta, rows.last_decay + log_alpha(alpha))
    return output[:, :, 0]


def mlp_commit_reference(weights: MlpWeights, state: MlpState) -> None:
    """The rows of whole chunks become one write of every matrix, in place, and the rings empty.

    Source: arXiv 2512.24695, Eqs 90-93.
    """
    learned, rows = state.learned(), Rows(state)
    whole = whole_matrices(initial_matrices(weights), learned)
    end = rows.decay[..., -1:]
    left = (end - rows.decay).exp()[..., None]
    for name in MEMORIES:
        for matrix, (w, x) in zip(learned[name], rows.written(name, learned[name], whole[name]), strict=True):
            matrix.copy_(end[..., None].exp() * matrix - (left * w).mT @ x)
    for name, tensor in state.tensors().items():
        if name.startswith("ring") or name == "position":
            tensor.zero_()


def mlp_state_of(memories: MemoriesState, weights: MlpWeights) -> MlpState:
    """The same memories as decode keeps them; ``memories`` holds all five and what they learned (retention delta)."""
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
        ring_gate=torch.stack([eta, decay], -1),
        position=memories.position[:, None].expand(-1, eta.shape[1]).contiguous(),
    )
    learned = state.learned()
    close_rows(state, Rows(state), learned["memory"], whole_matrices(initial_matrices(weights), learned)["memory"])
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
        self.k = state.ring_k.masked_fill(~self.there[..., None], 0.0)
        self.v = state.ring_v.masked_fill(~self.there[..., None], 0.0)
        self.eta = state.ring_gate[..., 0].masked_fill(~self.there, 0.0)
        last = state.ring_gate[..., 1].gather(2, (count - 1).clamp(min=0))
        self.last_decay = last.masked_fill(count == 0, 0.0)
        self.decay = torch.where(self.there, state.ring_gate[..., 1], self.last_decay)
        self.decay_before = torch.cat([torch.zeros_like(self.last_decay), self.decay[..., :-1]], -1)

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


def close_rows(state: MlpState, rows: Rows, learned: Matrices, whole: Matrices) -> list[tuple[Tensor, Tensor]]:
    """What every row of the ring writes into the memory that is read; kept in the ring."""
    written = rows.written("memory", learned, whole)
    (u, _), (_, a) = written
    e = rank_one_factors("memory", rows.k, rows.v, whole)[1][0]
    for ring, closed in ((state.ring_u, u), (state.ring_a, a), (state.ring_e, e)):
        ring.copy_(torch.where(rows.there[..., None], closed, ring))
    return written


def _read_causally(
    q: Tensor, rows: Rows, initial: Matrices, learned: Matrices, whole: Matrices, state: MlpState
) -> Tensor:
    """M_memory,t-1(q_t) through every row; what closes the rows stays in the ring."""
    left = (rows.last_decay - rows.decay).exp()[..., None, :]
    decay = rows.last_decay.exp()[..., None]
    (u, k), (error, a) = close_rows(state, rows, learned, whole)

    def seen(z: Tensor, i: int, w: Tensor, x: Tensor) -> Tensor:
        return z @ initial[i].mT + decay * (z @ learned[i].mT) - ((z @ x.mT) * left) @ w

    return q + seen(F.silu(seen(q, 0, u, k)), 1, error, a)


def _append(state: MlpState, k: Tensor, v: Tensor, eta: Tensor, decay: Tensor) -> None:
    """One open row more."""
    at = state.position.long()[..., None]
    gates = torch.stack([eta, decay], -1)
    for ring, row in ((state.ring_k, k), (state.ring_v, v), (state.ring_gate, gates)):
        ring.scatter_(2, at[..., None].expand(-1, -1, 1, ring.shape[-1]), row.to(ring.dtype))
    state.position.add_(1)
