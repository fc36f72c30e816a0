"""A Llama-shaped model small enough to differentiate in 64 bits, and a plain account of it that is slow and obvious."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hope_serve.model.attention import AttentionShape, AttentionWeights, LayerWeights

SHAPE = AttentionShape(
    vocab_size=61,
    hidden_size=24,
    num_layers=3,
    num_heads=6,
    num_key_heads=2,
    head_size=8,
    wide_size=40,
    norm_eps=1e-5,
    inverse_frequencies=tuple(10000 ** (-i / 4) for i in range(4)),
)
RANK = 4


def tiny_weights(*, biases=True, tied=True, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=dtype) * 0.3

    s = SHAPE
    heads = (s.num_heads + 2 * s.num_key_heads) * s.head_size
    layers = LayerWeights(
        attention_norm=1 + draw(s.num_layers, s.hidden_size),
        query_key_value=draw(s.num_layers, heads, s.hidden_size),
        output=draw(s.num_layers, s.hidden_size, s.num_heads * s.head_size),
        mlp_norm=1 + draw(s.num_layers, s.hidden_size),
        gate_up=draw(s.num_layers, 2 * s.wide_size, s.hidden_size),
        down=draw(s.num_layers, s.hidden_size, s.wide_size),
        bias=draw(s.num_layers, heads) if biases else None,
    )
    embedding = draw(s.vocab_size, s.hidden_size)
    head = embedding if tied else draw(s.vocab_size, s.hidden_size)
    return AttentionWeights(embedding=embedding, head=head, norm=1 + draw(s.hidden_size), layers=layers)


def tiny_part(seed=1, dtype=torch.float64):
    """A projection [L, r, F], a token's weight [d] and [1]."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((SHAPE.num_layers, RANK, SHAPE.wide_size), (SHAPE.hidden_size,), (1,))
    return [torch.randn(*size, generator=generator, dtype=dtype) * 0.5 for size in sizes]


def plain_hidden(weights, ids, projection, memory):
    """Final hidden vectors [T, d] of one text under one memory [L, d, r], in the most obvious way."""
    s, count = SHAPE, len(ids)
    h = weights.embedding[ids]
    angles = torch.arange(count)[:, None] * torch.tensor(s.inverse_frequencies, dtype=h.dtype)
    causal = torch.ones(count, count).tril().bool()
    for i, layer in enumerate(weights.layers.unbind()):
        x = _norm(h, layer.attention_norm) @ layer.query_key_value.T
        x = (x if layer.bias is None else x + layer.bias).view(count, -1, s.head_size)
        mixed = []
        for head in range(s.num_heads):
            key_head = head // (s.num_heads // s.num_key_heads)
            query = _turned(x[:, head], angles)
            key = _turned(x[:, s.num_heads + key_head], angles)
            value = x[:, s.num_heads + s.num_key_heads + key_head]
            scores = (query @ key.T / s.head_size**0.5).masked_fill(~causal, float("-inf"))
            mixed.append(scores.softmax(-1) @ value)
        h = h + torch.cat(mixed, -1) @ layer.output.T
        gate, up = (_norm(h, layer.mlp_norm) @ layer.gate_up.T).chunk(2, -1)
        down = layer.down if memory is None else layer.down + memory[i] @ projection[i]
        h = h + (F.silu(gate) * up) @ down.T
    return _norm(h, weights.norm)


def _norm(x, scale):
    return x / (x.square().mean(-1, keepdim=True) + SHAPE.norm_eps).sqrt() * scale


def _turned(x, angles):
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)
