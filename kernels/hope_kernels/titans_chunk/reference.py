"""Many tokens of a linear memory in plain torch; README.md beside this derives every line.

Pure and differentiable: tensors and state in, tensors and state out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.layout import LinearState, LinearWeights, TitansRule
from hope_kernels.titans_commit.reference import close_open_row

Clocks = tuple[LinearState, ...]


def titans_chunk_reference(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    clocks: Clocks,
    *,
    positions: tuple[int, ...],
    lengths: Tensor | None = None,
) -> tuple[Tensor, Clocks]:
    """Run T tokens of B sequences that all stand at the same place in their chunks.

    Args:
        x: [B, H, T, D], the memories' input.
        q: [B, H, T, D], the query before its L2 norm.
        weights: initial memories.
        rule: the constants; ``rule.chunk_sizes`` gives one clock or two.
        clocks: one state a clock.
        positions: rows in each clock's ring, the same for all sequences.
        lengths: [B], tokens of each sequence that count, at least 1; the rest is padding, which writes nothing
            and whose output means nothing. Only within one chunk: padding may not reach past a boundary.

    Returns:
        o: [B, H, T, D] = M_memory(q), and the clocks after the last token.

    Raises:
        ValueError: padded sequences reach past a chunk boundary.

    Source: arXiv 2512.24695, Eqs 83-93.
    """
    room = min(size - at for size, at in zip(rule.chunk_sizes, positions, strict=True))
    if lengths is not None and x.shape[2] > room:
        raise ValueError(f"padded sequences of {x.shape[2]} tokens with {room} left in the chunk: cut them there")
    outputs = []
    begin = 0
    while begin < x.shape[2]:
        room = min(size - at for size, at in zip(rule.chunk_sizes, positions, strict=True))
        end = min(begin + room, x.shape[2])
        output, clocks = _span(x[:, :, begin:end], q[:, :, begin:end], weights, rule, clocks, positions, lengths)
        outputs.append(output)
        positions = tuple((at + end - begin) % size for size, at in zip(rule.chunk_sizes, positions, strict=True))
        begin = end
    return torch.cat(outputs, 2), clocks


def _span(
    x: Tensor,
    q: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    clocks: Clocks,
    positions: tuple[int, ...],
    lengths: Tensor | None,
) -> tuple[Tensor, Clocks]:
    """Tokens that cross no chunk boundary of either clock."""
    clocks = tuple(close_open_row(clock) if at else clock for clock, at in zip(clocks, positions, strict=True))
    k, v, eta, alpha = project(x, x @ clocks[0].matrix, weights, rule)
    if lengths is not None:
        padding = (torch.arange(x.shape[2], device=x.device) >= lengths[:, None])[:, None]
        eta, alpha = eta.masked_fill(padding, 0.0), alpha.masked_fill(padding, 1.0)
    writes = [_Writes(clock, at, k, v, eta, alpha) for clock, at in zip(clocks, positions, strict=True)]
    output = read_memory(F.normalize(q, dim=-1), writes[-1], weights, rule)
    if lengths is None:
        return output, tuple(w.state_after() for w in writes)
    return output, tuple(w.ragged_state_after(lengths) for w in writes)


def project(
    x: Tensor, learned: Tensor, weights: LinearWeights, rule: TitansRule
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """k, v: [B, H, T, D] of unit length; eta, alpha: [B, H, T] (Eqs 83-85), from x and what was learned of it."""
    seen = x + learned
    k = F.normalize(seen @ weights.key.mT, dim=-1)
    v = F.normalize(seen @ weights.value.mT, dim=-1)
    gates = torch.sigmoid(seen @ weights.gates.mT + weights.gate_bias[:, None])
    return k, v, rule.eta_max * gates[..., 0], rule.alpha_min + (1 - rule.alpha_min) * gates[..., 1]


def log_alpha(alpha: Tensor) -> Tensor:
    """log alpha of a retention that may have underflowed to zero, which erases all the same."""
    return alpha.clamp(min=torch.finfo(alpha.dtype).tiny).log()


def read_memory(q: Tensor, writes: _Writes, weights: LinearWeights, rule: TitansRule) -> Tensor:
    """M_memory,t-1(q_t): through the rows before t (causal) or through the snapshot alone."""
    learned = q @ writes.before.matrix
    if rule.causal:
        seen = (q @ writes.all_k.mT) * writes.shrunk()
        learned = writes.decay_before.exp()[..., None] * learned - seen @ writes.all_w
    return (q + learned) @ weights.memory.mT


class _Writes:
    """The rows that T tokens add to one clock's ring of ``at`` closed rows; decays are logs."""

    def __init__(self, before: LinearState, at: int, k: Tensor, v: Tensor, eta: Tensor, alpha: Tensor) -> None:
        self.before, self.at, self.k, self.eta = before, at, k, eta
        old = before.ring_gate[:, :, :at, 1]
        start = old[..., -1:] if at else torch.zeros_like(alpha[..., :1])
        new = start + log_alpha(alpha).cumsum(-1)
        self.decay = torch.cat([old, new], -1)
        self.decay_before = torch.cat([start, new[..., :-1]], -1)
        free = eta[..., None] * (k - v)
        self.open = (eta * self.decay_before.exp())[..., None] * k + free
        self.all_k = torch.cat([before.ring_k[:, :, :at], k], 2)
        self.w = self._solve(self.open @ before.matrix + free)
        self.all_w = torch.cat([before.ring_w[:, :, :at], self.w], 2)

    def shrunk(self) -> Tensor:
        """[B, H, T, at + T]: how much of each row's write is left just before each token; 0 from the token on."""
        later = torch.ones(self.k.shape[2], self.all_k.shape[2], dtype=torch.bool, device=self.k.device).triu(self.at)
        return (self.decay_before[..., None] - self.decay[..., None, :]).masked_fill(later, -torch.inf).exp()

    def _solve(self, rows: Tensor) -> Tensor:
        """Forward substitution through the closed rows, then through the new ones."""
        mix = self.eta[..., None] * (self.k @ self.all_k.mT) * self.shrunk()
        rows = rows - mix[..., : self.at] @ self.before.ring_w[:, :, : self.at]
        solved: Tensor = torch.linalg.solve_triangular(mix[..., self.at :], rows, upper=False, unitriangular=True)
        return solved

    def state_after(self) -> LinearState:
        """The clock with the rows in its ring, or with its matrix moved if they fill it."""
        before, tokens = self.before, self.k.shape[2]
        if self.at + tokens == before.ring_k.shape[2]:
            return self._moved()
        rows_w = torch.cat([self.all_w[:, :, :-1], self.open[:, :, -1:]], 2)
        pad = (0, 0, 0, before.ring_k.shape[2] - self.at - tokens)
        return LinearState(
            matrix=before.matrix,
            ring_k=F.pad(self.all_k, pad),
            ring_w=F.pad(rows_w, pad),
            ring_gate=F.pad(self._gates(), pad),
            position=before.position + tokens,
        )

    def ragged_state_after(self, lengths: Tensor) -> LinearState:
        """The same where sequence b added only its first ``lengths[b]`` rows."""
        size, tokens = self.before.ring_k.shape[2], self.k.shape[2]
        row = torch.arange(size, device=self.k.device)[:, None]
        end = (self.at + lengths)[:, None, None, None]
        pad = (0, 0, 0, size - self.at - tokens)
        opened = F.pad(torch.cat([self.before.ring_w[:, :, : self.at], self.open], 2), pad)
        rows_w = torch.where(row == end - 1, opened, F.pad(self.all_w, pad))
        state = LinearState(
            matrix=self.before.matrix,
            ring_k=F.pad(self.all_k, pad).masked_fill(row >= end, 0.0),
            ring_w=rows_w.masked_fill(row >= end, 0.0),
            ring_gate=F.pad(self._gates(), pad).masked_fill(row >= end, 0.0),
            position=self.before.position + lengths[:, None].to(self.before.position.dtype),
        )
        if self.at + tokens < size:
            return state
        return _where(self.at + lengths == size, self._moved(), state)

    def _gates(self) -> Tensor:
        eta = torch.cat([self.before.ring_gate[:, :, : self.at, 0], self.eta], -1)
        return torch.stack([eta, self.decay], -1)

    def _moved(self) -> LinearState:
        """The clock after a whole chunk: one write of the matrix, an empty ring."""
        before, end = self.before, self.decay[..., -1:]
        left = (end - self.decay).exp()[..., None]
        return LinearState(
            matrix=end[..., None].exp() * before.matrix - self.all_k.mT @ (left * self.all_w),
            ring_k=torch.zeros_like(before.ring_k),
            ring_w=torch.zeros_like(before.ring_w),
            ring_gate=torch.zeros_like(before.ring_gate),
            position=torch.zeros_like(before.position),
        )


def _where(chosen: Tensor, yes: LinearState, no: LinearState) -> LinearState:
    """Sequence by sequence, one state or the other."""
    other = no.tensors()
    return LinearState(
        **{n: torch.where(chosen.view(-1, *[1] * (t.dim() - 1)), t, other[n]) for n, t in yes.tensors().items()}
    )
