"""The HOPE model: blocks of self-modifying Titans and a Continuum Memory System."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hope_serve.model.cms import Delta, Level
from hope_serve.model.config import HopeConfig
from hope_serve.model.state import LayerState, SequenceState
from hope_serve.model.titans import Titans

Deltas = tuple[Delta, ...]
"""One Delta an online level, fast to slow, tensors stacked over layers: inner [B, L, F, r], outer [B, L, d, r]."""


Blocks = Sequence["Block"]

# Room above 1 lets a correction outweigh what it corrects within one open chunk.
MAX_TOKEN_WEIGHT = 4.0


class RmsNorm(nn.Module):
    """x / rms(x), scaled; spelled out because the fused form has no second derivative."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., width]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.scale


class Block(nn.Module):
    """h + Titans(norm(h)), then h + MLP^(l)(norm(h)) from fast level to slow (arXiv 2512.24695, section 8.3)."""

    def __init__(self, config: HopeConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.norm_eps
        self.titans_norm = RmsNorm(width, eps)
        self.titans = Titans(config)
        self.level_norms: Sequence[RmsNorm] = nn.ModuleList(RmsNorm(width, eps) for _ in config.levels)  # type: ignore[assignment]
        self.levels: Sequence[Level] = nn.ModuleList(Level(level, width) for level in config.levels)  # type: ignore[assignment]

    def forward(
        self, h: Tensor, state: LayerState, deltas: Sequence[Delta | None], *, consumed: int
    ) -> tuple[Tensor, LayerState]:
        """h: [B, T, d]; ``deltas``: one a level, None where the level is as trained."""
        mixed, after = self.titans(self.titans_norm(h), state, consumed=consumed)
        h = h + mixed
        for norm, level, delta in zip(self.level_norms, self.levels, deltas, strict=True):
            h = h + level(norm(h), delta)
        return h, after


class HopeModel(nn.Module):
    """Tokens and state in, hidden vectors and state out. It keeps nothing between calls."""

    def __init__(self, config: HopeConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, config.hidden_size) / config.hidden_size**0.5)
        self.blocks: Blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))  # type: ignore[assignment]
        self.norm = RmsNorm(config.hidden_size, config.norm_eps)
        if config.token_weight == "learned":
            self.token_weight = nn.Linear(config.hidden_size, 1)
            nn.init.zeros_(self.token_weight.weight)
            nn.init.constant_(self.token_weight.bias, -math.log(MAX_TOKEN_WEIGHT - 1))  # a weight of 1

    def freeze(self) -> Self:
        """The model for serving: no gradients of parameters, and what depends on them alone made once."""
        self.requires_grad_(False).eval()
        for block in self.blocks:
            block.titans.freeze()
        return self

    def fresh_state(self, batch: int) -> SequenceState:
        """The state of ``batch`` sequences before their first token."""
        return SequenceState(layers=tuple(block.titans.fresh_state(batch) for block in self.blocks))

    def forward(
        self,
        tokens: Tensor,
        state: SequenceState,
        *,
        consumed: int = 0,
        deltas: Deltas | None = None,
    ) -> tuple[Tensor, SequenceState]:
        """Run T tokens of B sequences that have ``consumed`` tokens behind them; differentiable, any number of times.

        Args:
            tokens: [B, T] ids.
            state: the sequences' state; not changed.
            deltas: what the online levels have learned; None runs the model as trained.

        Returns:
            hidden [B, T, d] after the final norm, and the state after the last token.
        """
        h, after = F.embedding(tokens, self.embedding), []
        for block, layer, learned in zip(self.blocks, state.layers, self._by_layer(deltas), strict=True):
            h, moved = block(h, layer, learned, consumed=consumed)
            after.append(moved)
        return self.norm(h), SequenceState(layers=tuple(after))

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [..., V] of hidden vectors [..., d]; the embedding is tied."""
        return F.linear(hidden, self.embedding)

    def learning_weight(self, hidden: Tensor) -> Tensor:
        """How much each token's loss counts when the model learns online: [B, T] in (0, 4), 1 if not learned.

        A constant of the inner gradient: nothing flows back into ``hidden``.
        """
        if self.config.token_weight == "none":
            return hidden.new_ones(hidden.shape[:-1])
        return MAX_TOKEN_WEIGHT * torch.sigmoid(self.token_weight(hidden.detach())[..., 0])

    def _by_layer(self, deltas: Deltas | None) -> list[list[Delta | None]]:
        """For every layer one entry a level: its delta, or None for a level as trained."""
        table: list[list[Delta | None]] = [[None] * len(self.config.levels) for _ in self.blocks]
        for index, delta in zip(self.config.online_levels, deltas or (), strict=False):
            for row, inner, outer in zip(table, delta.inner.unbind(1), delta.outer.unbind(1), strict=True):
                row[index] = Delta(inner, outer)
        return table
