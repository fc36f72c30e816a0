"""Self-modifying Titans as a layer: what is static about the sequence mixer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from hope_kernels.layout import LinearWeights, MlpWeights
from torch import Tensor, nn

from hope_serve.model.carry import Mixer
from hope_serve.model.config import HopeConfig

CONV_WIDTH = 4
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

    def forward(self, x: Tensor, mixer: Mixer) -> Tensor:
        """x [..., d] to [..., d]; ``mixer`` holds this layer's memories and moves them."""
        u = F.silu(mixer.convolve(x, self.conv))
        out: Tensor = self.output(mixer.mix(self.input(u), self.query(u), self.weights(), self.rule))
        return out
