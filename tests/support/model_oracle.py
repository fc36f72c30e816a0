"""A HOPE model run token by token from its weights alone, one sequence, loops and matrices.

It shares no computation with the product: it reads parameters and writes the equations out.
"""

from __future__ import annotations

import torch
from support.titans_oracle import HeadOracle, silu

NAMES = ("key", "value", "memory")


class ModelOracle:
    """``deltas``: per online level (inner [L, F, r], outer [L, d, r]) of this sequence."""

    def __init__(self, model, deltas=()):
        self.model, self.config = model, model.config
        self.deltas = dict(zip(model.config.online_levels, deltas, strict=False))
        self.heads = [self.layer_heads(block.titans) for block in model.blocks]
        self.window = [[torch.zeros(model.config.hidden_size, dtype=torch.float64)] * 4 for _ in model.blocks]

    def run(self, tokens):
        return torch.stack([self.step(int(token)) for token in tokens])

    def step(self, token):
        h = self.model.embedding[token]
        for layer, block in enumerate(self.model.blocks):
            h = h + self.titans(layer, block.titans, norm(block.titans_norm, h))
            for index, (scale, level) in enumerate(zip(block.level_norms, block.levels, strict=True)):
                inner, outer = self.dense(level, index, layer)
                h = h + outer @ silu(inner @ norm(scale, h))
        return norm(self.model.norm, h)

    def dense(self, level, index, layer):
        """The level's two matrices with this sequence's delta written out in full."""
        if index not in self.deltas:
            return level.inner, level.outer
        inner, outer = (d[layer] for d in self.deltas[index])
        if level.config.delta == "subspace":
            inner, outer = inner @ level.inner_projection, outer @ level.outer_projection
        return level.inner + inner, level.outer + outer

    def titans(self, layer, titans, x):
        self.window[layer] = [*self.window[layer][1:], x]
        u = silu(sum(past * titans.conv[:, i] for i, past in enumerate(self.window[layer])))
        xs = (titans.input.weight @ u).view(len(self.heads[layer]), -1)
        qs = (titans.query.weight @ u).view(len(self.heads[layer]), -1)
        out = [head.step(x, q) for head, x, q in zip(self.heads[layer], xs, qs, strict=True)]
        return titans.output.weight @ torch.cat(out)

    def layer_heads(self, titans):
        options = self.config.titans
        return [
            HeadOracle(
                base=self.base(titans, head),
                bias_eta=titans.gate_bias[head, 0],
                bias_alpha=titans.gate_bias[head, 1],
                eta_max=options.eta_max,
                alpha_min=options.alpha_min,
                chunk=options.chunk_size,
                memory_chunk=options.memory_chunk_size or options.chunk_size,
                causal=options.read == "causal",
                retain_delta=options.retention == "delta",
                dgd_hidden=options.dgd_hidden,
            )
            for head in range(options.num_heads)
        ]

    def base(self, titans, head):
        if self.config.titans.memory == "linear":
            square = {name: [getattr(titans, name)[head]] for name in NAMES}
            return square | {"eta": [titans.gates[head, :1]], "alpha": [titans.gates[head, 1:]]}
        order = ("key", "value", "eta", "alpha", "memory")
        outer = {name: titans.outer[head, i] for i, name in enumerate(NAMES)}
        outer |= {name: titans.gate_outer[head, i : i + 1] for i, name in enumerate(("eta", "alpha"))}
        return {name: [outer[name], titans.inner[head, i]] for i, name in enumerate(order)}


def norm(module, x):
    return x / torch.sqrt((x * x).mean() + module.eps) * module.scale
