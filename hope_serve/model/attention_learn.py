"""Whole passes of Hope-Attention: reading under a memory, and the exact gradient that a told text gives it.

Shapes as in ``attention``; several texts may share a row, told apart by their segment numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.attention import (
    AttentionShape,
    AttentionWeights,
    Past,
    Place,
    layer_forward,
    layer_gradient,
    layer_read,
    rms_norm,
    rotations,
    token_weights,
)
from hope_serve.model.attention_head import cross_entropies, divergences, loss_gradient
from hope_serve.model.attention_ops import rms_norm_gradient

SHARED, PADDING = 0, -1
"""Segment numbers: of tokens that every later segment of the row sees, and of tokens that count for nothing."""


def counted_tokens(mask: Tensor, at_most: int) -> Tensor:
    """Places [n] of the tokens that count, in the flattened ``mask``; as many as there are, ``at_most`` or fewer."""
    del at_most
    return mask.flatten().nonzero()[:, 0]


def as_many_tokens(mask: Tensor, at_most: int) -> Tensor:
    """Places of exactly ``at_most`` tokens, those that count first: no size depends on what the mask holds."""
    if at_most >= mask.numel():
        return torch.arange(mask.numel(), device=mask.device)
    return mask.flatten().argsort(descending=True, stable=True)[:at_most]


class LayerFunctions(NamedTuple):
    """The three passes through one layer, which tokens go through the head, and what is taken there.

    A trainer may put others in place. What ``forward`` keeps is for ``gradient``; it names the told tokens' ``key`` and
    ``value``.
    """

    forward: Callable[..., tuple[Tensor, Any]] = layer_forward
    gradient: Callable[..., tuple[Tensor, Tensor]] = layer_gradient
    read: Callable[..., Tensor] = layer_read
    counted: Callable[[Tensor, int], Tensor] = counted_tokens
    loss_gradient: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = loss_gradient
    cross_entropies: Callable[[Tensor, Tensor, Tensor], Tensor] = cross_entropies
    divergences: Callable[[Tensor, Tensor, Tensor], Tensor] = divergences


class Told(NamedTuple):
    """Rows of told tokens, [N, T] each. mask: 1 where ``targets`` teaches."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    positions: Tensor
    segments: Tensor


class MemoryRule(NamedTuple):
    """What a model learns with, beside its weights: A [L, r, F] and the linear map of a token's weight."""

    projection: Tensor
    weight: Tensor
    bias: Tensor


class Lesson(NamedTuple):
    """What one pass over told rows gave: the gradient of B [N, L, d, r], and keys and values a layer."""

    gradient: Tensor
    past: tuple[Past, ...]


def place(
    shape: AttentionShape,
    positions: Tensor,
    segments: Tensor,
    dtype: torch.dtype,
    past_segments: Tensor | None = None,
) -> Place:
    """Where packed tokens [N, T] stand: each sees its own segment's earlier tokens, and the shared ones."""
    keys = segments if past_segments is None else torch.cat([past_segments, segments], 1)
    seen = (keys[:, None, :] == segments[:, :, None]) | (keys[:, None, :] == SHARED)
    tokens, offset = segments.shape[1], keys.shape[1] - segments.shape[1]
    rows = torch.arange(tokens, device=segments.device)[:, None] + offset
    seen = seen & (torch.arange(keys.shape[1], device=segments.device)[None] <= rows)
    bias = torch.zeros(seen.shape, device=segments.device, dtype=dtype).masked_fill(~seen, float("-inf"))
    return Place(*rotations(shape, positions, dtype), bias[:, None])


def read_hidden(
    shape: AttentionShape,
    weights: AttentionWeights,
    tokens: Tensor,
    where: Place,
    *,
    projection: Tensor,
    memory: Tensor | None,
    functions: LayerFunctions | None = None,
) -> Tensor:
    """Hidden vectors [N, T, d] after the final norm, under memories B [N, L, d, r]."""
    read = (functions or LayerFunctions()).read
    h = F.embedding(tokens, weights.embedding)
    memories = _by_layer(memory, shape.num_layers)
    for layer, a, b in zip(weights.layers.unbind(), _cast(projection, h).unbind(0), memories, strict=True):
        h = read(h, layer, shape, where, a, b)
    return rms_norm(h, weights.norm, shape.norm_eps)


def memory_gradient(
    shape: AttentionShape,
    weights: AttentionWeights,
    told: Told,
    where: Place,
    *,
    rule: MemoryRule,
    memory: Tensor | None,
    past: Sequence[Past] | None = None,
    functions: LayerFunctions | None = None,
) -> Lesson:
    """d(sum_t w_t CE_t) / dB of every row, backpropagated through later layers and truncated at the row's start.

    Sum and not mean, so that a rate does not depend on how text is cut (arXiv 2512.24695, Eq 71). Differentiable.
    """
    steps = functions or LayerFunctions()
    h = F.embedding(told.inputs, weights.embedding)
    projections = _cast(rule.projection, h).unbind(0)
    memories = _by_layer(memory, shape.num_layers)
    pasts: Sequence[Past | None] = past or [None] * shape.num_layers
    layers = weights.layers.unbind()
    traces: list[Any] = []
    for layer, a, b, before in zip(layers, projections, memories, pasts, strict=True):
        h, trace = steps.forward(h, layer, shape, where, a, b, before)
        traces.append(trace)
    pulled = _last_gradient(shape, weights, told, rule, h, steps)
    gradients = []
    for index in reversed(range(shape.num_layers)):
        under = projections[index], memories[index]
        pulled, gradient = steps.gradient(
            pulled, traces[index], layers[index], shape, where, under, pasts[index], first=index == 0
        )
        gradients.append(gradient)
    kept = tuple(Past(trace.key.detach(), trace.value.detach()) for trace in traces)
    return Lesson(gradient=torch.stack(gradients[::-1], 1), past=kept)


def _last_gradient(
    shape: AttentionShape, weights: AttentionWeights, told: Told, rule: MemoryRule, h: Tensor, steps: LayerFunctions
) -> Tensor:
    """The gradient of the last layer's output; only tokens that teach are put through the head."""
    hidden = rms_norm(h, weights.norm, shape.norm_eps)
    counted = steps.counted(told.mask, told.mask.numel())
    rows = hidden.flatten(0, 1).index_select(0, counted)
    weight = token_weights(rows, rule.weight, rule.bias) * told.mask.flatten()[counted]
    pulled = steps.loss_gradient(rows, weights.head, told.targets.flatten()[counted], weight)
    full = torch.zeros_like(hidden).flatten(0, 1).index_copy(0, counted, pulled).view_as(hidden)
    return rms_norm_gradient(full, h, weights.norm, shape.norm_eps)


def _by_layer(memory: Tensor | None, num_layers: int) -> Sequence[Tensor | None]:
    return [None] * num_layers if memory is None else memory.unbind(1)


def _cast(projection: Tensor, like: Tensor) -> Tensor:
    return projection.to(like.dtype)
