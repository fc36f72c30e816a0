"""The gradient of the chunk form by hand, in plain torch; README.md beside this derives every line.

What the kernels of the backward are tested against, in fp64, where autograd of ``reference.py`` confirms it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from hope_kernels.layout import LinearWeights, TitansRule
from hope_kernels.pool import weights_in

SHORTEST = 1e-12


@dataclass(frozen=True)
class ChunkRows:
    """One chunk of each of B sequences that have one, T rows a chunk.

    new: [B, T] bool, whether a row is a token of this call; the others are constants. x, q, grad: [B, H, T, D], zero
    where no new row is; keys, writes: [B, H, T, D]; frozen: [B, H, D, D], the snapshot, output first;
    eta, decay, before: [B, H, T], the rate and the logs of the decay after and before the row.
    """

    new: Tensor
    x: Tensor
    q: Tensor
    grad: Tensor
    keys: Tensor
    writes: Tensor
    frozen: Tensor
    eta: Tensor
    decay: Tensor
    before: Tensor

    def shrunk(self) -> Tensor:
        """[B, H, T, T]: how much of row s's write is left just before row t; 0 unless s < t."""
        left = (self.before[..., None] - self.decay[..., None, :]).clamp(max=0.0).exp()
        return left.tril(-1)


@dataclass(frozen=True)
class ReadGradients:
    """Of what a chunk's tokens read: q and the queries' unit rows, writes, keys, the snapshot, the log decays before.

    q, writes, keys: [B, H, T, D]; matrix: [B, H, D, D], input first; before: [B, H, T], without the part that
    cancels against the decay after the same row.
    """

    q: Tensor
    writes: Tensor
    keys: Tensor
    matrix: Tensor
    before: Tensor


def chunks_backward(rows: list[ChunkRows], weights: LinearWeights, rule: TitansRule) -> list[tuple[Tensor, Tensor]]:
    """Gradients of x and q, [B, H, T, D] each, of consecutive chunks.

    Args:
        rows: chunk after chunk; a later chunk may have fewer sequences, the first ones of the chunk before.
        weights: the initial memories, in the dtype of the rows.
        rule: the constants.

    Source: the adjoint of arXiv 2512.24695, Eqs 83-93, in the form of README.md.
    """
    heads, size = weights.key.shape[:2]
    after = rows[0].x.new_zeros(0, heads, size, size)
    grads = []
    for position in reversed(range(len(rows))):
        chunk = rows[position]
        missing = len(chunk.x) - len(after)
        after = torch.cat([after, after.new_zeros(missing, heads, size, size)])
        end = after.new_zeros(len(after), heads)
        if position + 1 < len(rows):
            behind = rows[position + 1].frozen.mT
            end[: len(behind)] = (behind * after[: len(behind)]).sum((-1, -2))
        read = read_backward(chunk, weights, rule)
        by_x, after = write_backward(chunk, read, after, end, weights, rule)
        grads.append((by_x, read.q))
    return grads[::-1]


def read_backward(rows: ChunkRows, weights: LinearWeights, rule: TitansRule) -> ReadGradients:
    """Everything that needs no later chunk."""
    unit, scale = unit_rows(rows.q)
    by_read = rows.grad @ weights.memory
    back = by_read @ rows.frozen
    if not rule.causal:
        nothing = torch.zeros_like(rows.keys)
        by_q = through_norm(by_read + back, unit, scale)
        return ReadGradients(by_q, nothing, nothing, unit.mT @ by_read, torch.zeros_like(rows.eta))
    left = rows.before.exp()[..., None]
    shrunk = rows.shrunk()
    seen = shrunk * (unit @ rows.keys.mT)
    by_seen = shrunk * (by_read @ rows.writes.mT)
    learned = left * back - by_seen @ rows.keys
    return ReadGradients(
        q=through_norm(by_read + learned, unit, scale),
        writes=-seen.mT @ by_read,
        keys=-by_seen.mT @ unit,
        matrix=(left * unit).mT @ by_read,
        before=(unit * learned).sum(-1),
    )


def write_backward(
    rows: ChunkRows, read: ReadGradients, after: Tensor, end: Tensor, weights: LinearWeights, rule: TitansRule
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the snapshot.

    Args:
        after: [B, H, D, D], the gradient of the next snapshot, zero behind an unfinished chunk.
        end: [B, H], that of the log decay at the chunk's end: the next snapshot times ``after``, summed.
    """
    new, eta = rows.new[:, None, :, None], rows.eta[..., None]
    seen = rows.x + rows.x @ rows.frozen.mT
    k, k_scale = unit_rows(seen @ weights.key.mT)
    k = torch.where(new, k, rows.keys)
    v, v_scale = unit_rows(seen @ weights.value.mT)
    left = rows.before.exp()[..., None]
    kept = (rows.decay[..., rule.chunk_size - 1 : rule.chunk_size, None] - rows.decay[..., None]).exp()

    upper = (eta * rows.shrunk() * (k @ k.mT)).mT
    by_w = read.writes - kept * (k @ after)
    by_row = torch.linalg.solve_triangular(upper, by_w, upper=True, unitriangular=True).masked_fill(~new, 0.0)
    by_p = by_row @ rows.frozen
    by_free = by_row + by_p
    mixed = -eta * rows.shrunk() * (by_row @ rows.writes.mT)
    by_k = read.keys - kept * (rows.writes @ after.mT) + (mixed + mixed.mT) @ k + eta * (left * by_p + by_free)
    by_z = through_norm(by_k, k, k_scale).masked_fill(~new, 0.0)
    by_zv = through_norm(-eta * by_free, v, v_scale)

    share = (by_row * rows.writes).sum(-1)
    later = read.before - (eta * (k - v) * by_free).sum(-1)
    by_decay = end[..., None] - share + later.flip(-1).cumsum(-1).flip(-1) - later
    gates = torch.stack(gates_backward(rows, share, by_decay, rule), -1) * new
    by_seen = by_z @ weights.key + by_zv @ weights.value + gates @ weights.gates
    p = eta * (left * k + k - v)
    by_matrix = read.matrix + p.mT @ by_row + rows.x.mT @ by_seen
    by_matrix = by_matrix + rows.decay[..., rule.chunk_size - 1, None, None].exp() * after
    return by_seen + by_seen @ rows.frozen, by_matrix


def gates_backward(rows: ChunkRows, share: Tensor, by_decay: Tensor, rule: TitansRule) -> tuple[Tensor, Tensor]:
    """Of both gates before their sigmoids; a write is proportional to its rate, so its share is all of eta's."""
    alpha = (rows.decay - rows.before).exp()
    slope = (alpha - rule.alpha_min) * (1 - alpha) / ((1 - rule.alpha_min) * alpha)
    return share * (1 - rows.eta / rule.eta_max), by_decay * slope


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows over their L2 norm, and one over the norm; a row without length has no direction: 0."""
    norm = rows.norm(dim=-1, keepdim=True)
    scale = torch.where(norm > SHORTEST, 1 / norm.clamp(min=SHORTEST), 0.0)
    return rows * scale, scale


def through_norm(grad: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """The gradient before an L2 norm."""
    return scale * (grad - unit * (unit * grad).sum(-1, keepdim=True))


def gathered_backward(
    x: Tensor,
    q: Tensor,
    grad: Tensor,
    weights: LinearWeights,
    rule: TitansRule,
    recorded: tuple[Tensor, ...],
    starts: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and q, [N, H, D], from what the forward's kernels left; it waits for the host.

    Args:
        recorded: span, keys, writes over eta_max, frozen and gates, as ``launch.Chunks`` has them.
        starts: [B + 1], where the runs of the sequences begin.
    """
    span, keys, writes, frozen, gates = recorded
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    weights = weights_in(weights, dtype)
    totals = torch.zeros_like(x), torch.zeros_like(q)
    for begin, end in span[span[:, 0] == -2][:, 1:].tolist():
        for total in totals:
            total[begin:end] = torch.nan
    r = torch.arange(keys.shape[2], device=x.device)
    rows, places = [], []
    for chosen in _in_order(span.tolist(), starts.tolist(), rule.chunk_size):
        before, low, high = span[chosen].long().T[..., None]
        token = low - before + r
        new = (token >= low) & (token < high)
        token = token.clamp(0, len(x) - 1)
        x_rows, q_rows, grad_rows = ((z[token] * new[..., None, None]).to(dtype).transpose(1, 2) for z in (x, q, grad))
        k_rows, w_rows, matrices, gate_rows = (z[chosen].to(dtype) for z in (keys, writes, frozen, gates))
        eta, decay, left = gate_rows[:, :, :3].unbind(2)
        rows.append(
            ChunkRows(
                new=new,
                x=x_rows,
                q=q_rows,
                grad=grad_rows,
                keys=k_rows,
                writes=rule.eta_max * w_rows,
                frozen=matrices,
                eta=eta,
                decay=decay,
                before=left,
            )
        )
        places.append((new, token))
    for (new, token), grads in zip(places, chunks_backward(rows, weights, rule) if rows else (), strict=True):
        for total, part in zip(totals, grads, strict=True):
            total[token[new]] = part.transpose(1, 2)[new].to(total.dtype)
    return totals


def _in_order(span: list[list[int]], starts: list[int], size: int) -> list[list[int]]:
    """Every sequence's first chunk, then every second one, ...; sequences with more chunks come first."""
    runs = []
    for b, (begin, end) in enumerate(pairwise(starts)):
        chunks = range(begin // size + 2 * b, end // size + 2 * b + 2)
        runs.append([i for i in chunks if span[i][0] >= 0 and span[i][1] < span[i][2]])
    runs.sort(key=len, reverse=True)
    return [[run[i] for run in runs if len(run) > i] for i in range(len(runs[0]))]
