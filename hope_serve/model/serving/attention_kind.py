"""Models of softmax attention in serving form: a slot's state is a cache, and conversations are read again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from hope_serve.model.attention_model import AttentionModel
from hope_serve.model.cms import Delta
from hope_serve.model.learn import LevelRule, Rules
from hope_serve.model.serving.attention import ServedSoftmax, ServedSwiglu
from hope_serve.model.serving.cache import CachePool
from hope_serve.model.serving.kind import ServedLayer, ServedParts
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.product import Shared

CUT_TOKENS = 64
"""Where prompts are cut when every bit counts."""


class AttentionKind:
    """See ``Kind``."""

    cut_tokens, rereads, captures_lessons = (CUT_TOKENS,), True, False

    def __init__(self, model: AttentionModel) -> None:
        self.model, self.config = model, model.config
        self._shape = model.config.base.shape()
        self.num_heads = self._shape.num_heads
        self.max_context_tokens = model.config.base.max_context_tokens

    @property
    def num_parameters(self) -> int:
        """See ``Kind``."""
        return self.model.num_parameters

    def rules(self) -> Rules:
        """See ``Kind.rules``."""
        return self.model.rules()

    def drift(self, level: int, delta: Delta) -> float:  # noqa: ARG002  (there is one)
        """See ``Kind.drift``: B A, and the down projections."""
        gram, weights = self._down_norms
        outer = delta.outer[0].to(gram.dtype)
        return math.sqrt(float(((outer @ gram) * outer).sum()) / weights)

    @cached_property
    def _down_norms(self) -> tuple[Tensor, float]:
        """A A^T of every layer, and the squared norm of all down projections."""
        projection = self.model.part.tensors["projection"]
        return projection @ projection.mT, float(self.model.weights.layers.down.square().sum())

    def parts(self, device: str, precision: Precision) -> ServedParts:
        """See ``Kind.parts``."""
        weights, part, dtype = self.model.weights, self.model.part.tensors, precision.compute
        wide = precision.wide
        embedding = weights.embedding.to(device, dtype)
        tied = weights.head is weights.embedding
        return ServedParts(
            embedding=embedding,
            head=Shared.of(embedding if tied else weights.head.to(device, dtype)),
            norm=weights.norm.to(device, wide),
            norm_eps=self._shape.norm_eps,
            layers=tuple(self._layer(index, device, precision) for index in range(self._shape.num_layers)),
            weigher=(part["token_weight.weight"][None].to(device, wide), part["token_weight.bias"].to(device, wide)),
            rules=tuple(_on(rule, device) for rule in self.rules()),
        )

    def _layer(self, index: int, device: str, precision: Precision) -> ServedLayer:
        layers, dtype, wide = self.model.weights.layers, precision.compute, precision.wide
        bias = None if layers.bias is None else layers.bias[index].to(device, dtype)
        heads, output = (t[index].to(device, dtype) for t in (layers.query_key_value, layers.output))
        gate_up, down = (t[index].to(device, dtype) for t in (layers.gate_up, self.model.down_and_projection))
        return ServedLayer(
            mixer_norm=layers.attention_norm[index].to(device, wide),
            mixer=ServedSoftmax(heads, output, bias),
            level_norms=(layers.mlp_norm[index].to(device, wide),),
            levels=(ServedSwiglu(gate_up, down, self._shape.hidden_size),),
        )

    def state_bytes(self, precision: Precision, max_tokens: int) -> int:
        """See ``Kind.state_bytes``."""
        shape = self._shape
        return 2 * shape.num_layers * max_tokens * shape.num_key_heads * shape.head_size * precision.compute.itemsize

    def learning_bytes(self, precision: Precision) -> int:
        """See ``Kind.learning_bytes``: rows of a layer as in ``TitansKind``, the two of a gated unit's, and logits."""
        width, hidden = self.config.hidden_size, self.model.weights.layers.down.shape[-1]
        layer = 12 * width + 3 * (width + 2 * hidden)
        return self._shape.num_layers * layer * min(4, precision.compute.itemsize + 1) + 3 * self.config.vocab_size * 4

    def state_traffic(self, precision: Precision) -> dict[str, int]:
        """See ``Kind.state_traffic``: the cache, with as many tokens behind as prompts are cut at."""
        return {"read": self.state_bytes(precision, CUT_TOKENS)}

    def pool(
        self, layers: Sequence[ServedLayer], num_slots: int, *, device: str, precision: Precision, max_tokens: int
    ) -> CachePool:
        """See ``Kind.pool``."""
        assert len(layers) == self._shape.num_layers
        return CachePool(self._shape, num_slots, max_tokens=max_tokens, dtype=precision.compute, device=device)


def _on(rule: LevelRule, device: str) -> LevelRule:
    def moved(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return pair[0].to(device), pair[1].to(device)

    with torch.no_grad():
        return LevelRule(optimizer=rule.optimizer, rates=moved(rule.rates), decays=moved(rule.decays))
