"""The HOPE model: blocks of self-modifying Titans and a Continuum Memory System."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from hope_kernels.mlp_state import knows_rule
from torch import Tensor, nn

from hope_serve.model.carry import ChunkMixer, DecodeMixer, Mixer, commit_rows
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
        self.level_norms = nn.ModuleList(RmsNorm(width, eps) for _ in config.levels)
        self.levels: Sequence[Level] = nn.ModuleList(Level(level, width) for level in config.levels)  # type: ignore[assignment]

    def forward(self, h: Tensor, mixer: Mixer, deltas: Sequence[Delta | None]) -> Tensor:
        """h: [B, T, d]; ``deltas``: one a level, None where the level is as trained."""
        h = h + self.titans(self.titans_norm(h), mixer)
        for norm, level, delta in zip(self.level_norms, self.levels, deltas, strict=True):
            h = h + level(norm(h), delta)
        return h


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
        return SequenceState(
            layers=tuple(
                LayerState.fresh(batch, self.config.hidden_size, block.titans.weights(), block.titans.rule)
                for block in self.blocks
            )
        )

    def forward(
        self,
        tokens: Tensor,
        state: SequenceState,
        *,
        consumed: int = 0,
        lengths: Tensor | None = None,
        deltas: Deltas | None = None,
    ) -> tuple[Tensor, SequenceState]:
        """Run T tokens of B sequences that have ``consumed`` tokens behind them.

        Args:
            tokens: [B, T] ids.
            state: the sequences' state; not changed.
            lengths: [B], tokens that count when the rest is padding; only up to the next Titans chunk boundary.
            deltas: what the online levels have learned; None runs the model as trained.

        Returns:
            hidden [B, T, d] after the final norm, and the state after the last token.
        """
        mixers = [ChunkMixer(layer, consumed=consumed, lengths=lengths) for layer in state.layers]
        hidden = self._run(tokens, mixers, deltas)
        return hidden, SequenceState(layers=tuple(mixer.after for mixer in mixers))

    def decode(self, tokens: Tensor, state: SequenceState, *, deltas: Deltas | None = None) -> Tensor:
        """Run one token [B] of each sequence, each at its own place; ``state`` changes in place.

        Only where ``decodes_in_place``. Rings that are full afterwards must be committed before the next token
        (``commit_full``).

        Returns:
            hidden [B, d].
        """
        mixers = [DecodeMixer(layer) for layer in state.layers]
        return self._run(tokens[:, None], mixers, deltas)[:, 0]

    @property
    def decodes_in_place(self) -> bool:
        """Whether ``decode`` applies: linear memories with delta retention, MLP memories with one clock as well."""
        rule = self.config.titans.rule()
        return rule.retain_delta if self.config.titans.memory == "linear" else knows_rule(rule)

    def commit_full(self, state: SequenceState, consumed: Sequence[int]) -> None:
        """Write full rings into their matrices, in place, for sequences that end a chunk after ``consumed`` tokens."""
        for clock, size in enumerate(self.config.titans.rule().chunk_sizes):
            due = [row for row, count in enumerate(consumed) if count % size == 0]
            if not due:
                continue
            for layer, block in zip(state.layers, self.blocks, strict=True):
                commit_rows(layer.clocks[clock], block.titans.weights(), block.titans.rule, due)

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

    def _run(self, tokens: Tensor, mixers: Sequence[Mixer], deltas: Deltas | None) -> Tensor:
        h = F.embedding(tokens, self.embedding)
        for block, mixer, learned in zip(self.blocks, mixers, self._by_layer(deltas), strict=True):
            h = block(h, mixer, learned)
        normed: Tensor = self.norm(h)
        return normed

    def _by_layer(self, deltas: Deltas | None) -> list[list[Delta | None]]:
        """For every layer one entry a level: its delta, or None for a level as trained."""
        table: list[list[Delta | None]] = [[None] * len(self.config.levels) for _ in self.blocks]
        for index, delta in zip(self.config.online_levels, deltas or (), strict=False):
            for row, inner, outer in zip(table, delta.inner.unbind(1), delta.outer.unbind(1), strict=True):
                row[index] = Delta(inner, outer)
        return table
