"""A gated delta net: linear attention whose state forgets by a gate and is corrected by the delta rule.

    S_t = a_t S_{t−1} (I − b_t k_t k_tᵀ) + b_t v_t k_tᵀ        o_t = S_t q_t          (arXiv 2412.06464, Eq 10)

A whole sequence is one chunk, exactly: with g the running product of a, (I + M) U = diag(b) V for
M_ts = b_t (g_t / g_s) (k_s · k_t), s < t, and o_t = Σ_{s ≤ t} (g_t / g_s) (k_s · q_t) U_s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hope_serve.model.hope import RmsNorm

CONV_WIDTH = 4
GATE_BIAS = 4.0
"""So that a starts near 1: sigmoid(4) = .982."""


def gated_delta(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor) -> Tensor:
    """q, k, v: [B, H, T, D]; log_a (≤ 0), b (in [0, 1]): [B, H, T]; to o [B, H, T, D]. q and k are of length 1."""
    passed = log_a.cumsum(-1)
    ratio = (passed[..., :, None] - passed[..., None, :]).tril().exp()
    identity = torch.eye(q.shape[-2], dtype=q.dtype, device=q.device)
    mixed = identity + (b[..., None] * ratio * (k @ k.mT)).tril(-1)
    written = torch.linalg.solve_triangular(mixed, b[..., None] * v, upper=False, unitriangular=True)
    out: Tensor = (ratio * (q @ k.mT)).tril() @ written
    return out


class GatedDeltaNet(nn.Module):
    """Blocks of a gated delta layer and an MLP; the embedding is tied."""

    def __init__(self, *, vocab_size: int, width: int, wide: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab_size, width) / width**0.5)
        self.blocks: Sequence[_Block] = nn.ModuleList(_Block(width, wide, num_heads) for _ in range(num_layers))  # type: ignore[assignment]
        self.norm = RmsNorm(width, 1e-6)

    def hidden(self, rows: Tensor) -> Tensor:
        """Ids [B, T] to vectors [B, T, d]."""
        h = F.embedding(rows, self.embedding)
        for block in self.blocks:
            h = block(h)
        normed: Tensor = self.norm(h)
        return normed


class _Block(nn.Module):
    def __init__(self, width: int, wide: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.mlp_norm = RmsNorm(width, 1e-6), RmsNorm(width, 1e-6)
        self.joint = nn.Linear(width, 3 * width, bias=False)
        self.conv = nn.Conv1d(3 * width, 3 * width, CONV_WIDTH, groups=3 * width, padding=CONV_WIDTH - 1)
        self.gates = nn.Linear(width, 2 * num_heads)
        self.out_gate = nn.Linear(width, width, bias=False)
        self.head_norm = RmsNorm(width // num_heads, 1e-6)
        self.output = nn.Linear(width, width, bias=False)
        self.inner, self.outer = nn.Linear(width, wide, bias=False), nn.Linear(wide, width, bias=False)
        nn.init.constant_(self.gates.bias[:num_heads], GATE_BIAS)

    def forward(self, h: Tensor) -> Tensor:
        """h: [B, T, d]."""
        x = self.norm(h)
        joint = F.silu(self.conv(self.joint(x).mT)[..., : x.shape[1]]).mT
        q, k, v = joint.reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        keep, write = self.gates(x).unflatten(-1, (2, self.num_heads)).permute(2, 0, 3, 1)
        mixed = gated_delta(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, F.logsigmoid(keep), write.sigmoid())
        mixed = self.head_norm(mixed).transpose(1, 2).flatten(2)
        h = h + self.output(mixed * F.silu(self.out_gate(x)))
        out: Tensor = h + self.outer(F.silu(self.inner(self.mlp_norm(h))))
        return out
