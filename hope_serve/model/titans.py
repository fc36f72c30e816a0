"""Self-modifying Titans as a layer: what is static about the sequence mixer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from hope_kernels.layout import LinearWeights, MlpWeights
from hope_kernels.mlp_state import knows_rule
from torch import Tensor, nn

from hope_serve.model.config import HopeConfig
from hope_serve.model.mixers import LinearMemory, Mixer, MlpMemory, SeparateMemories, split_heads
from hope_serve.model.state import CONV_TAIL, LayerState

CONV_WIDTH = CONV_TAIL + 1
# sigmoid(6) = .9975: a chunk must not begin by wiping what the last one wrote.
ALPHA_BIAS = 6.0


class Titans(nn.Module):
    """W_o Titans(conv4(x)) (arXiv 2512.24695, Eqs 83-93); the memories themselves live in the caller's carry."""

    def __init__(self, config: HopeConfig) -> None:
        super().__init__()
        self.config = config
        self.rule = config.titans.rule()
        self._frozen: LinearWeights | MlpWeights | None = None
        d, heads, size = config.hidden_size, config.titans.num_heads, config.head_size
        self.conv = nn.Parameter(torch.randn(d, CONV_WIDTH) * 0.3)
        self.input = nn.Linear(d, d, bias=False)
        self.query = nn.Linear(d, d, bias=False)
        self.output = nn.Linear(d, d, bias=False)
        self.gate_bias = nn.Parameter(torch.tensor([0.0, ALPHA_BIAS]).repeat(heads, 1))
        if config.titans.memory == "linear":
            self.key, self.value, self.memory = (
                nn.Parameter(torch.randn(heads, size, size) * 0.5 / math.sqrt(size)) for _ in range(3)
            )
            self.gates = nn.Parameter(torch.zeros(heads, 2, size))
        else:
            hidden = config.titans.mlp_hidden_size
            self.inner = nn.Parameter(torch.randn(heads, 5, hidden, size) / math.sqrt(size))
            self.outer = nn.Parameter(torch.randn(heads, 3, size, hidden) * 0.5 / math.sqrt(hidden))
            self.gate_outer = nn.Parameter(torch.zeros(heads, 2, hidden))

    def freeze(self) -> None:
        """Make the initial memories once and for all, for a model that is not trained further."""
        with torch.no_grad():
            self._frozen = self._weights()

    def weights(self) -> LinearWeights | MlpWeights:
        """The initial memories, as the ops take them; differentiable unless frozen."""
        return self._frozen or self._weights()

    def _weights(self) -> LinearWeights | MlpWeights:
        if self.config.titans.memory == "mlp":
            return MlpWeights(inner=self.inner, outer=self.outer, gate_outer=self.gate_outer, gate_bias=self.gate_bias)
        eye = torch.eye(self.config.head_size, dtype=self.key.dtype, device=self.key.device)
        return LinearWeights(
            key=eye + self.key,
            value=eye + self.value,
            memory=eye + self.memory,
            gates=self.gates,
            gate_bias=self.gate_bias,
        )

    def mixer(self) -> Mixer:
        """The layer's memories, by the kind that its rule asks for."""
        weights = self.weights()
        if isinstance(weights, LinearWeights) and self.rule.retain_delta:
            return LinearMemory(weights=weights, rule=self.rule)
        if isinstance(weights, MlpWeights) and knows_rule(self.rule):
            return MlpMemory(weights=weights, rule=self.rule)
        return SeparateMemories(weights=weights, rule=self.rule)

    def fresh_state(self, batch: int) -> LayerState:
        """The state of ``batch`` sequences before their first token."""
        tail = self.conv.new_zeros(batch, CONV_TAIL, self.config.hidden_size)
        return LayerState(tail=tail, clocks=self.mixer().fresh(batch))

    def forward(self, x: Tensor, state: LayerState, *, consumed: int) -> tuple[Tensor, LayerState]:
        """x [B, T, d] of sequences that have ``consumed`` tokens behind them, to [B, T, d] and the state after it."""
        mixer = self.mixer()
        joined = torch.cat([state.tail, x], 1)
        taps = [joined[:, i : i + x.shape[1]] * self.conv[:, i] for i in range(CONV_WIDTH)]
        u = F.silu(torch.stack(taps).sum(0))
        keys, queries = (split_heads(z, mixer.num_heads).transpose(1, 2) for z in (self.input(u), self.query(u)))
        mixed, clocks = mixer.chunk(keys, queries, state.clocks, consumed=consumed)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out, LayerState(tail=joined[:, -CONV_TAIL:], clocks=clocks)
