"""Models with random weights in the sizes that are measured, and the state of users who share a step."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_serve.engine.pools import Pools
from hope_serve.model.config import HopeConfig, LevelConfig, TitansConfig
from hope_serve.model.hope import HopeModel
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision

SIZES = {
    "tiny": (128, 2, 2, 256, 4096),
    "340m": (1024, 24, 16, 1536, 32_000),
    "1.3b": (2048, 24, 16, 3072, 32_000),
}
"""Hidden size, layers, heads, a level's hidden size, vocabulary."""
RANK = 16


def config_of(name: str) -> HopeConfig:
    """Two online levels (512 and 4,096 tokens) and a frozen one (hope.md, section 3)."""
    width, layers, heads, hidden, vocab = SIZES[name]
    return HopeConfig(
        name=name,
        vocab_size=vocab,
        hidden_size=width,
        num_layers=layers,
        titans=TitansConfig(num_heads=heads, chunk_size=64),
        levels=(
            LevelConfig(hidden_size=hidden, chunk_size=512, rank=RANK),
            LevelConfig(hidden_size=hidden, chunk_size=4096, rank=RANK),
            LevelConfig(hidden_size=hidden),
        ),
        memory_dtype="float16",
        dtype="float16",
    )


def served(name: str, device: str) -> ServedModel:
    """Random weights, in the precision that the server would choose."""
    torch.manual_seed(0)
    with torch.device(device):
        model = HopeModel(config_of(name))
    return ServedModel(model, device=device, precision=Precision.of(model.config, device))


def fill(pools: Pools, model: ServedModel, *, temperature: float = 0.0) -> None:
    """Users in the middle of their chunks, each with a memory of their own."""
    torch.manual_seed(1)
    for name, view in (pools.state.views | pools.delta_rows.views).items():
        if ".delta." in name:
            view[1:] = torch.randn(view[1:].shape, device=view.device, dtype=torch.float32).to(view.dtype) * 1e-3
        elif name.endswith("position"):
            places = torch.randint(0, model.config.titans.chunk_size, (len(view) - 1,), device=view.device)
            view[1:] = places[:, None].expand_as(view[1:]).to(view.dtype)
    pools.remembers[1:] = 1
    pools.last_token[1:] = torch.randint(0, model.config.vocab_size, (len(pools.last_token) - 1,), device=model.device)
    pools.sampling.temperature[1:] = temperature
    if temperature:
        pools.sampling.top_p[1:] = 0.95
        pools.sampling.seed[1:] = torch.arange(1, len(pools.last_token), device=model.device)


def slots(count: int, device: torch.device) -> Tensor:
    """[count] int32, slots 1 to ``count``."""
    return torch.arange(1, count + 1, dtype=torch.int32, device=device)


def decode_bytes(model: ServedModel, count: int, *, memory: bool) -> int:
    """The fewest bytes that a step moves: weights once; matrices, half a ring and memories of each sequence."""
    config = model.config
    weights = sum(t.numel() * t.element_size() for t in model.weights())
    heads, size, chunk = config.titans.num_heads, config.head_size, config.titans.chunk_size
    matrix = heads * size * size * model.precision.state.itemsize
    ring = heads * chunk // 2 * 2 * size * model.precision.ring.itemsize
    deltas = model.delta_layout(model.precision.deltas).num_bytes if memory else 0
    return weights + count * (config.num_layers * (matrix + ring) + deltas)
