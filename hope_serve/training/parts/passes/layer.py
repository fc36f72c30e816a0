"""The three passes through a layer, in the places of ``hope_serve.model.attention``'s."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from hope_serve.model.attention import AttentionShape, LayerWeights, Past, Place
from hope_serve.model.attention_learn import LayerFunctions
from hope_serve.training.parts.passes.head import CrossEntropies, Divergences, LossGradient
from hope_serve.training.parts.passes.heads import Heads, InnerHeads
from hope_serve.training.parts.passes.mixing import InnerMix, Mix
from hope_serve.training.parts.passes.pointwise import PLAIN_KERNELS, Kernels
from hope_serve.training.parts.passes.products import merged
from hope_serve.training.parts.passes.sizes import Sizes
from hope_serve.training.parts.passes.wide import InnerMemory, InnerWide, Wide


class Kept(NamedTuple):
    """What a layer's forward pass keeps for its gradient.

    keys, values: earlier ones and own, constants; down: the down projection with A below it; learned: A's part of it.
    """

    before: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    keys: Tensor
    values: Tensor
    shares: Tensor
    middle: Tensor
    gate_up: Tensor
    learned: Tensor
    down: Tensor


class Passes:
    """The passes of a training step, by the given kernels.

    Args:
        kernels: the element-wise work, fused or not.
    """

    def __init__(self, kernels: Kernels = PLAIN_KERNELS) -> None:
        self._kernels = kernels

    def functions(self) -> LayerFunctions:
        """For ``read_hidden``, ``memory_gradient`` and the losses."""
        return LayerFunctions(
            forward=self.forward,
            gradient=self.gradient,
            read=self.read,
            loss_gradient=self.loss_gradient,
            cross_entropies=self.cross_entropies,
            divergences=self.divergences,
        )

    def forward(
        self,
        h: Tensor,
        weights: LayerWeights,
        shape: AttentionShape,
        place: Place,
        projection: Tensor,
        memory: Tensor | None,
        past: Past | None = None,
    ) -> tuple[Tensor, Kept]:
        """As ``layer_forward``."""
        sizes = Sizes.of(shape)
        query, key, value, before = self._heads(h, weights, sizes, place)
        keys, values = (key, value) if past is None else (_joined(past.key, key), _joined(past.value, value))
        keys, values = keys.detach(), values.detach()
        mixed, shares = _run(Mix, sizes, self._kernels, query, key, value, keys, values, place.bias)
        down = torch.cat([weights.down, projection])
        out, middle, gate_up, learned = self._wide(before, mixed, weights, sizes, down, memory)
        return out, Kept(before, query, key, value, keys, values, shares, middle, gate_up, learned, down)

    def gradient(
        self,
        gradient: Tensor,
        kept: Kept,
        weights: LayerWeights,
        shape: AttentionShape,
        place: Place,
        under: tuple[Tensor, Tensor | None],
        past: Past | None = None,
        *,
        first: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As ``layer_gradient``; A is in ``kept`` already, and so is ``past``."""
        del past
        sizes, kernels = Sizes.of(shape), self._kernels
        for_memory = _run(InnerMemory, gradient, kept.learned)
        if first:
            return gradient, for_memory
        for_middle, for_mixed = _run(
            InnerWide, sizes, kernels,
            gradient, kept.middle, kept.gate_up, weights.output, weights.mlp_norm, weights.gate_up,
            kept.down, _like(under[1], gradient),
        )  # fmt: skip
        for_heads = _run(
            InnerMix, sizes, kernels, for_mixed, kept.query, kept.key, kept.value, kept.keys, kept.values, kept.shares
        )
        for_before = _run(
            InnerHeads, sizes, kernels,
            *for_heads, for_middle, kept.before, weights.attention_norm, weights.query_key_value,
            place.cos, place.sin,
        )  # fmt: skip
        return for_before, for_memory

    def read(
        self,
        h: Tensor,
        weights: LayerWeights,
        shape: AttentionShape,
        place: Place,
        projection: Tensor,
        memory: Tensor | None,
    ) -> Tensor:
        """As ``layer_read``."""
        sizes = Sizes.of(shape, copied=True)
        query, key, value, before = self._heads(h, weights, sizes, place)
        bias = place.bias.expand(h.shape[0], shape.num_heads, -1, -1)
        mixed = merged(F.scaled_dot_product_attention(query, key, value, attn_mask=bias))
        down = weights.down if memory is None else torch.cat([weights.down, projection])
        return self._wide(before, mixed, weights, sizes, down, memory)[0]

    def _heads(self, h: Tensor, weights: LayerWeights, sizes: Sizes, place: Place) -> tuple[Tensor, ...]:
        """Queries, keys and values, and h for whatever comes after."""
        matrix, bias = weights.query_key_value, weights.bias
        return _run(Heads, sizes, self._kernels, h, weights.attention_norm, matrix, bias, place.cos, place.sin)  # type: ignore[no-any-return]

    def _wide(
        self, h: Tensor, mixed: Tensor, weights: LayerWeights, sizes: Sizes, down: Tensor, memory: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The layer's output, and what its gradient needs; ``down`` may have A below it."""
        matrices = weights.output, weights.mlp_norm, weights.gate_up, down
        return _run(Wide, sizes, self._kernels, h, mixed, *matrices, _like(memory, h))  # type: ignore[no-any-return]

    def loss_gradient(self, hidden: Tensor, head: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """As the model's own; the head gets no gradient."""
        pulled: Tensor = _run(LossGradient, self._kernels, hidden, head, targets, weight)
        return pulled

    def cross_entropies(self, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        """Nats [n] of the targets."""
        losses: Tensor = _run(CrossEntropies, self._kernels, hidden, head, targets)
        return losses

    def divergences(self, hidden: Tensor, head: Tensor, wanted: Tensor) -> Tensor:
        """KL(wanted || now) [n]."""
        losses: Tensor = _run(Divergences, self._kernels, hidden, head, wanted)
        return losses


def _run(function: type[Function], *arguments: Any) -> Any:
    return function.apply(*arguments)  # type: ignore[no-untyped-call]


def _joined(past: Tensor, own: Tensor) -> Tensor:
    return torch.cat([past.to(own.dtype), own], 2)


def _like(memory: Tensor | None, h: Tensor) -> Tensor | None:
    return None if memory is None else memory.to(h.dtype)
