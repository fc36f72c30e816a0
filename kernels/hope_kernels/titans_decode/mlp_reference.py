"""One token of every sequence through five MLP memories, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_kernels.layout import Matrices, MlpWeights, TitansRule
from hope_kernels.mlp_state import MlpState
from hope_kernels.titans_chunk.mlp_rows import Rows, close_open_row, whole_matrices
from hope_kernels.titans_chunk.reference import log_alpha
from hope_kernels.titans_chunk.reference_memories import apply_memory, initial_matrices


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


def _read_causally(
    q: Tensor, rows: Rows, initial: Matrices, learned: Matrices, whole: Matrices, state: MlpState
) -> Tensor:
    """M_memory,t-1(q_t) through every row; what closes the rows stays in the ring."""
    left = (rows.last_decay - rows.decay).exp()[..., None, :]
    decay = rows.last_decay.exp()[..., None]
    close_open_row(state, rows, learned, whole)
    u, a, error = rows.kept(state.ring_u), rows.kept(state.ring_a), rows.eta[..., None] * rows.kept(state.ring_e)

    def seen(z: Tensor, i: int, w: Tensor, x: Tensor) -> Tensor:
        from_start = torch.einsum("bhtx,hyx->bhty", z, initial[i])
        return from_start + decay * (z @ learned[i].mT) - ((z @ x.mT) * left) @ w

    return q + seen(F.silu(seen(q, 0, u, rows.k)), 1, error, a)


def _append(state: MlpState, k: Tensor, v: Tensor, eta: Tensor, decay: Tensor) -> None:
    """One open row more."""
    at = state.position.long()[..., None]
    gates = torch.stack([eta, decay], -1)
    for ring, row in ((state.ring_k, k), (state.ring_v, v), (state.ring_gate, gates)):
        ring.scatter_(2, at[..., None].expand(-1, -1, 1, ring.shape[-1]), row.to(ring.dtype))
    state.position.add_(1)
