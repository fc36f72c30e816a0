"""Five separate memories (MLP, or linear with full retention) in plain torch, chunk-parallel.

The one-matrix identity does not hold for these, so each memory keeps its own matrices. The ring keeps raw
rows (k, v, eta, alpha); what the snapshot makes of them is recomputed when they are read or written.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.layout import MEMORIES, RESIDUAL, LinearWeights, Matrices, MemoriesState, MlpWeights, TitansRule
from hope_kernels.titans_chunk.reference import log_alpha

Clocks = tuple[MemoriesState, ...]


def initial_matrices(weights: LinearWeights | MlpWeights) -> dict[str, Matrices]:
    """Each memory's initial matrices without identity: (W,) or (W2, W1), each [H, out, in]."""
    if isinstance(weights, LinearWeights):
        eye = torch.eye(weights.key.shape[-1], dtype=weights.key.dtype, device=weights.key.device)
        square: dict[str, Matrices] = {name: (getattr(weights, name) - eye,) for name in RESIDUAL}
        return square | {name: (weights.gates[:, i : i + 1],) for i, name in enumerate(("eta", "alpha"))}
    inner = dict(zip(MEMORIES, weights.inner.unbind(1), strict=True))
    outer = dict(zip(RESIDUAL, weights.outer.unbind(1), strict=True))
    outer |= {name: weights.gate_outer[:, i : i + 1] for i, name in enumerate(("eta", "alpha"))}
    return {name: (inner[name], outer[name]) for name in MEMORIES}


def fresh_memories(batch: int, weights: LinearWeights | MlpWeights, rule: TitansRule) -> Clocks:
    """Memories that have learned nothing, one state a clock."""
    initial = initial_matrices(weights)
    groups = (MEMORIES,) if len(rule.chunk_sizes) == 1 else (MEMORIES[:4], MEMORIES[4:])
    heads, size = initial["memory"][0].shape[0], initial["memory"][0].shape[-1]
    like = weights.gate_bias

    def start(matrix: Tensor) -> Tensor:
        whole = matrix.expand(batch, *matrix.shape)
        return torch.zeros_like(whole) if rule.retain_delta else whole.clone()

    return tuple(
        MemoriesState(
            matrices={name: tuple(map(start, initial[name])) for name in names},
            ring_k=like.new_zeros(batch, heads, chunk, size),
            ring_v=like.new_zeros(batch, heads, chunk, size),
            ring_gate=like.new_zeros(batch, heads, chunk, 2),
            position=torch.zeros(batch, dtype=torch.int32, device=like.device),
        )
        for names, chunk in zip(groups, rule.chunk_sizes, strict=True)
    )


def titans_chunk_memories_reference(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights | MlpWeights,
    rule: TitansRule,
    clocks: Clocks,
    *,
    positions: tuple[int, ...],
) -> tuple[Tensor, Clocks]:
    """Run T tokens of B sequences at the same place in their chunks; arguments as ``titans_chunk_reference``."""
    initial = initial_matrices(weights)
    outputs = []
    begin = 0
    while begin < x.shape[2]:
        room = min(size - at for size, at in zip(rule.chunk_sizes, positions, strict=True))
        end = min(begin + room, x.shape[2])
        span = slice(begin, end)
        output, clocks = _span(x[:, :, span], q[:, :, span], initial, weights.gate_bias, rule, clocks, positions)
        outputs.append(output)
        positions = tuple((at + end - begin) % size for size, at in zip(rule.chunk_sizes, positions, strict=True))
        begin = end
    return torch.cat(outputs, 2), clocks


def _span(
    x: Tensor,
    q: Tensor,
    initial: dict[str, Matrices],
    gate_bias: Tensor,
    rule: TitansRule,
    clocks: Clocks,
    positions: tuple[int, ...],
) -> tuple[Tensor, Clocks]:
    """Tokens that cross no chunk boundary of either clock."""
    learned = {name: matrices for clock in clocks for name, matrices in clock.matrices.items()}
    whole = {
        name: tuple(a + b for a, b in zip(initial[name], learned[name], strict=True))
        if rule.retain_delta
        else learned[name]
        for name in MEMORIES
    }
    k = F.normalize(apply_memory(x, whole["key"], residual=True), dim=-1)
    v = F.normalize(apply_memory(x, whole["value"], residual=True), dim=-1)
    raw = torch.cat([apply_memory(x, whole[name], residual=False) for name in ("eta", "alpha")], -1)
    gates = torch.sigmoid(raw + gate_bias[:, None])
    gates = torch.stack([rule.eta_max * gates[..., 0], rule.alpha_min + (1 - rule.alpha_min) * gates[..., 1]], -1)
    rings = [_Ring(clock, at, k, v, gates) for clock, at in zip(clocks, positions, strict=True)]
    output = _read(F.normalize(q, dim=-1), rings[-1], initial["memory"], whole["memory"], rule)
    moved = tuple(ring.state_after(whole, rule) for ring in rings)
    return output, moved


def apply_memory(x: Tensor, matrices: Matrices, *, residual: bool) -> Tensor:
    """M(x) of rows x [..., T, D]: x + W x, or x + W1 silu(W2 x); gates without the residual."""
    hidden = x @ matrices[0].mT
    y = F.silu(hidden) @ matrices[1].mT if len(matrices) == 2 else hidden
    return x + y if residual else y


def rank_one_factors(name: str, k: Tensor, v: Tensor, whole: Matrices) -> list[tuple[Tensor, Tensor]]:
    """For each matrix of a memory, the rows (G, X) with gradient sum_t G_t X_t^T of 1/2 ||M(k) - vhat||^2 (Eq 93).

    vhat = M(v) is a constant of this gradient, not of an outer one: nothing is detached.
    """
    residual = name in RESIDUAL
    error = apply_memory(k, whole, residual=residual) - apply_memory(v, whole, residual=residual)
    if len(whole) == 1:
        return [(error, k)]
    hidden = k @ whole[0].mT
    gate = torch.sigmoid(hidden)
    slope = gate * (1 + hidden * (1 - gate))
    return [((error @ whole[1]) * slope, k), (error, F.silu(hidden))]


class _Ring:
    """One clock's rows with T new ones, and what the snapshot makes of them; decays are logs."""

    def __init__(self, clock: MemoriesState, at: int, k: Tensor, v: Tensor, gates: Tensor) -> None:
        self.clock, self.at = clock, at
        self.k = torch.cat([clock.ring_k[:, :, :at], k], 2)
        self.v = torch.cat([clock.ring_v[:, :, :at], v], 2)
        self.gates = torch.cat([clock.ring_gate[:, :, :at], gates], 2)
        self.eta, alpha = self.gates.unbind(-1)
        self.decay = log_alpha(alpha).cumsum(-1)
        self.decay_before = F.pad(self.decay[..., :-1], (1, 0))

    def shrunk(self) -> Tensor:
        """[B, H, N, N]: how much of each row's write is left just before each row; 0 from the row itself on."""
        later = torch.ones(self.k.shape[2], self.k.shape[2], dtype=torch.bool, device=self.k.device).triu()
        return (self.decay_before[..., None] - self.decay[..., None, :]).masked_fill(later, -torch.inf).exp()

    def rows(self, matrix: Tensor, gradient: Tensor, x: Tensor, *, delta_rule: bool) -> Tensor:
        """w of ``matrix_t = alpha_t matrix_{t-1} - w_t x_t^T``."""
        eta = self.eta[..., None]
        if not delta_rule:
            return eta * gradient
        lower = eta * (x @ x.mT) * self.shrunk()
        free = eta * (self.decay_before.exp()[..., None] * (x @ matrix.mT) + gradient)
        solved: Tensor = torch.linalg.solve_triangular(lower, free, upper=False, unitriangular=True)
        return solved

    def written(self, name: str, whole: Matrices, rule: TitansRule) -> list[tuple[Tensor, Tensor]]:
        """(w, X) of each matrix of memory ``name``."""
        factors = rank_one_factors(name, self.k, self.v, whole)
        return [
            (self.rows(matrix, g, x, delta_rule=i == 0 or rule.dgd_hidden), x)
            for i, (matrix, (g, x)) in enumerate(zip(self.clock.matrices[name], factors, strict=True))
        ]

    def state_after(self, whole: dict[str, Matrices], rule: TitansRule) -> MemoriesState:
        """The clock with the rows in its ring, or with its matrices moved if they fill it."""
        clock, size = self.clock, self.clock.ring_k.shape[2]
        if self.k.shape[2] < size:
            pad = (0, 0, 0, size - self.k.shape[2])
            return MemoriesState(
                matrices=clock.matrices,
                ring_k=F.pad(self.k, pad),
                ring_v=F.pad(self.v, pad),
                ring_gate=F.pad(self.gates, pad),
                position=clock.position + (self.k.shape[2] - self.at),
            )
        end = self.decay[..., -1:]
        left = (end - self.decay).exp()[..., None]
        matrices = {
            name: tuple(
                end[..., None].exp() * m - (left * w).mT @ x
                for m, (w, x) in zip(clock.matrices[name], self.written(name, whole[name], rule), strict=True)
            )
            for name in clock.matrices
        }
        return MemoriesState(
            matrices=matrices,
            ring_k=torch.zeros_like(clock.ring_k),
            ring_v=torch.zeros_like(clock.ring_v),
            ring_gate=torch.zeros_like(clock.ring_gate),
            position=torch.zeros_like(clock.position),
        )


def _read(q: Tensor, ring: _Ring, initial: Matrices, whole: Matrices, rule: TitansRule) -> Tensor:
    """M_memory,t-1(q_t): through the rows before t (causal) or through the snapshot alone."""
    if not rule.causal:
        return apply_memory(q, whole, residual=True)
    new = slice(ring.at, None)
    decay, shrunk = ring.decay_before[..., new].exp()[..., None], ring.shrunk()[..., new, :]

    def seen(z: Tensor, i: int, w: Tensor, x: Tensor) -> Tensor:
        moved = decay * (z @ ring.clock.matrices["memory"][i].mT) - ((z @ x.mT) * shrunk) @ w
        return moved + z @ initial[i].mT if rule.retain_delta else moved

    written = ring.written("memory", whole, rule)
    hidden = seen(q, 0, *written[0])
    return q + (hidden if len(written) == 1 else seen(F.silu(hidden), 1, *written[1]))
