"""Where a run begins: a part that has learned nothing, its optimizer, and the base on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hope_serve.model.attention import AttentionShape, AttentionWeights
from hope_serve.model.attention_learn import LayerFunctions
from hope_serve.model.parts import expected_shapes
from hope_serve.training.parts.passes.fused import fused
from hope_serve.training.parts.passes.layer import Passes

RETAINED = 0.999
"""What a chunk leaves of the memory at first. It hardly moves: the guard would have it fall, since a smaller memory
departs less from the base, and what was told a hundred chunks ago would be gone."""


def new_part(shape: AttentionShape, *, rank: int, start_rank: int, seed: int) -> dict[str, Tensor]:
    """A part that has learned nothing: orthonormal projections, a start that changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in expected_shapes(shape, rank=rank, start_rank=start_rank).items():
        tensors[name] = torch.zeros(size)
        if name.endswith(".inner"):
            tensors[name] = torch.randn(size, generator=generator) / math.sqrt(size[-1])
    drawn = torch.randn(shape.num_layers, shape.wide_size, rank, generator=generator)
    tensors["projection"] = torch.linalg.qr(drawn)[0].mT.contiguous()
    tensors["log_rate"] += math.log(0.02)
    tensors["decay_logit"] += math.log(RETAINED / (1 - RETAINED))
    tensors["token_weight.bias"] -= math.log(3.0)  # a weight of 1
    return tensors


def make_optimizer(part: dict[str, Tensor], *, scale: float) -> torch.optim.AdamW:
    """AdamW over the rates, the token's weight, the projections and the start, each at its own pace."""
    groups = (
        ([part[name] for name in ("log_rate", "token_weight.bias")], 1e-2),
        ([part["decay_logit"]], 3e-4),
        ([part["token_weight.weight"]], 1e-3),
        ([part["projection"]], 1e-3),
        ([t for n, t in part.items() if n.startswith("start.")], 4e-4),
    )
    settings = [{"params": tensors, "lr": rate * scale, "base": rate * scale} for tensors, rate in groups]
    return torch.optim.AdamW(settings, betas=(0.9, 0.98), weight_decay=0.0, fused=part["projection"].is_cuda)


def compiled() -> LayerFunctions:
    """The passes with gradients written out and their element-wise parts fused."""
    torch._dynamo.config.recompile_limit = 64
    return Passes(fused()).functions()


def on_device(weights: AttentionWeights, device: str, dtype: torch.dtype) -> AttentionWeights:
    """Weights moved and cast; a tied head stays tied."""
    layers = weights.layers._replace(
        **{name: t.to(device, dtype) for name, t in weights.layers._asdict().items() if t is not None}
    )
    embedding = weights.embedding.to(device, dtype)
    tied = weights.head is weights.embedding
    head = embedding if tied else weights.head.to(device, dtype)
    return AttentionWeights(embedding, head, weights.norm.to(device, dtype), layers)
