"""Hope-Attention as pure functions: softmax attention and SwiGLU levels whose down projection a memory moves.

A memory adds ``B A`` to every layer's down projection: ``A`` [r, F] belongs to the model, ``B`` [d, r] to a user. The
inner gradient of ``B`` is written out by hand, so that one ordinary backward pass differentiates through a lesson.

Shapes: N rows, T tokens, S keys, d hidden, H heads, K key heads, e head size, F wide, r rank, L layers, V vocabulary.
Source: arXiv 2512.24695, section 7.3 (ad-hoc level stacking); Eq 71 for the gradient.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hope_serve.model.attention_ops import (
    attention_shares,
    attention_shares_gradient,
    precise,
    rms_norm_gradient,
    rotate,
    swiglu,
    swiglu_gradient,
)

MAX_TOKEN_WEIGHT = 4.0
"""A token's learned weight lies in (0, 4): room above 1 lets a correction outweigh what it corrects."""


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """Dimensions and constants of a Llama or Qwen2 shaped model. ``inverse_frequencies``: of the e / 2 rotations."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_heads: int
    head_size: int
    wide_size: int
    norm_eps: float
    inverse_frequencies: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.num_heads % self.num_key_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}; it must be a multiple of num_key_heads {self.num_key_heads}"
            )
        if len(self.inverse_frequencies) * 2 != self.head_size:
            raise ValueError(
                f"inverse_frequencies holds {len(self.inverse_frequencies)} values; "
                f"head_size {self.head_size} takes half as many"
            )

    @property
    def num_weights(self) -> int:
        """Weights that a token is multiplied with, the head included and the embedding's look-up not."""
        attention = self.hidden_size * self.head_size * (2 * self.num_heads + 2 * self.num_key_heads)
        layer = attention + 3 * self.hidden_size * self.wide_size
        return self.num_layers * layer + self.vocab_size * self.hidden_size


class LayerWeights(NamedTuple):
    """One layer's matrices; stacked over layers they carry a leading L.

    query_key_value: [(H + 2 K) e, d], its bias the first of these; output: [d, H e]; gate_up: [2 F, d]; down: [d, F].
    """

    attention_norm: Tensor
    query_key_value: Tensor
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    bias: Tensor | None = None

    def unbind(self) -> tuple[LayerWeights, ...]:
        """Stacked weights as one tuple a layer."""
        count = len(self.down)
        columns = [[None] * count if t is None else t.unbind(0) for t in self]
        return tuple(LayerWeights(*row) for row in zip(*columns, strict=True))


class AttentionWeights(NamedTuple):
    """A whole model. embedding, head: [V, d], the same tensor when tied; norm: [d]; layers: stacked over L."""

    embedding: Tensor
    head: Tensor
    norm: Tensor
    layers: LayerWeights


class Place(NamedTuple):
    """Where tokens stand: rotations cos, sin [N or 1, 1, T, e], and bias [N or 1, 1, T, S], 0 or -inf."""

    cos: Tensor
    sin: Tensor
    bias: Tensor


class Trace(NamedTuple):
    """What a layer's forward pass keeps for its gradient."""

    before: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    shares: Tensor
    middle: Tensor
    gate_up: Tensor
    wide: Tensor


class Past(NamedTuple):
    """Keys and values of earlier tokens, [N, K, P, e]; constants of the inner gradient."""

    key: Tensor
    value: Tensor


def rotations(shape: AttentionShape, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(cos, sin) [N, 1, T, e] of positions [N, T]."""
    frequencies = _frequencies(shape.inverse_frequencies, positions.device, precise(dtype))
    angles = positions[:, None, :, None].to(frequencies.dtype) * frequencies
    both = torch.cat([angles, angles], -1)
    return both.cos().to(dtype), both.sin().to(dtype)


@functools.cache
def _frequencies(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """The rotations' frequencies on a device, once: a captured pass must not copy from the host."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """x / rms(x), scaled."""
    return F.rms_norm(x, (x.shape[-1],), scale, eps)


def layer_forward(
    h: Tensor,
    weights: LayerWeights,
    shape: AttentionShape,
    place: Place,
    projection: Tensor,
    memory: Tensor | None,
    past: Past | None = None,
) -> tuple[Tensor, Trace]:
    """One layer over N rows, and what ``layer_gradient`` needs of it.

    Args:
        h: [N, T, d].
        projection, memory: A [r, F] and B [N, d, r]; None for rows that have learned nothing.
        past: keys and values that come before these tokens.
    """
    query, key, value = _heads(h, weights, shape, place)
    keys, values = (key, value) if past is None else (_joined(past.key, key), _joined(past.value, value))
    scores = (_grouped(query, shape) @ keys.mT).view(*query.shape[:3], keys.shape[2])
    shares = attention_shares(scores, place.bias, shape.head_size**-0.5)
    mixed = (_grouped(shares, shape) @ values).view_as(query)
    middle = h + F.linear(_merged(mixed), weights.output)
    gate_up = F.linear(rms_norm(middle, weights.mlp_norm, shape.norm_eps), weights.gate_up)
    wide = swiglu(gate_up)
    out = middle + _down(wide, weights, projection, memory)
    return out, Trace(h, query, key, value, shares, middle, gate_up, wide)


def layer_read(
    h: Tensor,
    weights: LayerWeights,
    shape: AttentionShape,
    place: Place,
    projection: Tensor,
    memory: Tensor | None,
) -> Tensor:
    """``layer_forward`` by the fused attention of the library: differentiable once, nothing kept."""
    query, key, value = _heads(h, weights, shape, place)
    group = shape.num_heads // shape.num_key_heads
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    bias = place.bias.expand(h.shape[0], shape.num_heads, -1, -1)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    middle = h + F.linear(_merged(mixed), weights.output)
    gate_up = F.linear(rms_norm(middle, weights.mlp_norm, shape.norm_eps), weights.gate_up)
    return middle + _down(swiglu(gate_up), weights, projection, memory)


def layer_gradient(
    gradient: Tensor,
    trace: Trace,
    weights: LayerWeights,
    shape: AttentionShape,
    place: Place,
    under: tuple[Tensor, Tensor | None],
    past: Past | None = None,
    *,
    first: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gradients of the layer's input [N, T, d] and of its memory B [N, d, r], given that of its output.

    Written in differentiable operations: a backward pass through it is the outer gradient of a lesson.

    Args:
        under: A [r, F] and B [N, d, r], as the layer was read.
        first: nothing comes before the layer, and the gradient of its input is not taken: what is returned for it is
            that of the output.
    """
    projection, memory = under
    dtype = precise(gradient.dtype)
    for_memory = gradient.to(dtype).mT @ F.linear(trace.wide, projection).to(dtype)
    if first:
        return gradient, for_memory
    for_wide = gradient @ weights.down
    if memory is not None:
        for_wide = for_wide + (gradient @ memory.to(gradient.dtype)) @ projection
    for_middle = swiglu_gradient(for_wide, trace.gate_up) @ weights.gate_up
    middle = gradient + rms_norm_gradient(for_middle, trace.middle, weights.mlp_norm, shape.norm_eps)
    for_heads = _attention_gradient(middle @ weights.output, trace, shape, place, past)
    for_before = for_heads @ weights.query_key_value
    return middle + rms_norm_gradient(for_before, trace.before, weights.attention_norm, shape.norm_eps), for_memory


def token_weights(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """How much each token teaches, [N, T] in (0, 4); a constant of the inner gradient."""
    return MAX_TOKEN_WEIGHT * torch.sigmoid(hidden.detach().to(weight.dtype) @ weight + bias)


def _heads(h: Tensor, weights: LayerWeights, shape: AttentionShape, place: Place) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries [N, H, T, e] and keys, and values [N, K, T, e]."""
    x = rms_norm(h, weights.attention_norm, shape.norm_eps)
    all_heads = F.linear(x, weights.query_key_value, weights.bias)
    split = all_heads.view(*h.shape[:2], -1, shape.head_size).transpose(1, 2)
    turned = rotate(split[:, : -shape.num_key_heads], place.cos, place.sin)
    return turned[:, : shape.num_heads], turned[:, shape.num_heads :], split[:, -shape.num_key_heads :]


def _attention_gradient(
    gradient: Tensor, trace: Trace, shape: AttentionShape, place: Place, past: Past | None
) -> Tensor:
    """The gradient [N, T, (H + 2 K) e] of what ``_heads`` splits, given that of the mixed heads [N, T, H e]."""
    rows, tokens = gradient.shape[:2]
    keys = trace.key if past is None else _joined(past.key, trace.key)
    values = trace.value if past is None else _joined(past.value, trace.value)
    mixed = _grouped(gradient.view(rows, tokens, shape.num_heads, -1).transpose(1, 2), shape)
    shares = _grouped(trace.shares, shape)
    for_shares = mixed @ values.mT
    for_scores = attention_shares_gradient(for_shares, shares, shape.head_size**-0.5)
    for_query = (for_scores @ keys).view(rows, shape.num_heads, tokens, -1)
    own = slice(keys.shape[2] - tokens, None)
    for_key = for_scores[..., own].mT @ _grouped(trace.query, shape)
    for_value = shares[..., own].mT @ mixed
    turned = rotate(torch.cat([for_query, for_key], 1), place.cos, -place.sin)
    return torch.cat([turned, for_value], 1).transpose(1, 2).reshape(rows, tokens, -1)


def _down(wide: Tensor, weights: LayerWeights, projection: Tensor, memory: Tensor | None) -> Tensor:
    out = F.linear(wide, weights.down)
    if memory is None:
        return out
    return out + F.linear(wide, projection) @ memory.to(wide.dtype).mT


def _grouped(x: Tensor, shape: AttentionShape) -> Tensor:
    """[N, H, T, s] as [N, K, (H / K) T, s]: the heads that share a key head stand below one another."""
    return x.reshape(x.shape[0], shape.num_key_heads, -1, x.shape[-1])


def _merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _joined(past: Tensor, own: Tensor) -> Tensor:
    return torch.cat([past.to(own.dtype), own], 2)
