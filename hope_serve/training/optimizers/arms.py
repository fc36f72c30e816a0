"""What is compared: five optimizers of one level, and more levels under one optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hope_serve.model.config import HopeConfig, LevelConfig, TitansConfig
from hope_serve.optim import DeepMomentum, DeltaMomentum, MultiScaleMomentum, TaggedOptimizer
from hope_serve.training.optimizers.language import VOCAB_SIZE

WIDTH, WIDE, RANK = 128, 256, 16
CHUNK = 32
"""Of the fastest level. A lesson of the study ends one, so that the periods below are one, two and four lessons."""


def _online(optimizer: str | TaggedOptimizer = "gd", *, period: int = 1, rank: int = RANK) -> LevelConfig:
    return LevelConfig(hidden_size=WIDE, chunk_size=CHUNK * period, rank=rank, optimizer=optimizer)


_FROZEN = LevelConfig(hidden_size=WIDE)

ARMS: Mapping[str, tuple[LevelConfig, ...]] = MappingProxyType(
    {
        "gd": (_online(), _FROZEN),
        "momentum": (_online("momentum"), _FROZEN),
        "delta_momentum": (_online(DeltaMomentum()), _FROZEN),
        "dmgd": (_online(DeepMomentum()), _FROZEN),
        "m3": (_online(MultiScaleMomentum(frequency=2)), _FROZEN),
        "gd, levels of 1 and 4": (_online(), _online(period=4)),
        "gd, levels of 1 and 4, half the rank": (_online(rank=RANK // 2), _online(period=4, rank=RANK // 2)),
        "gd, levels of 1, 2 and 4": (_online(), _online(period=2), _online(period=4)),
    }
)


def model_of(levels: tuple[LevelConfig, ...]) -> HopeConfig:
    """The study's model with these levels; those of fp16 memories are what its bytes count."""
    return HopeConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        num_layers=2,
        titans=TitansConfig(num_heads=2, eta_max=0.5),
        levels=levels,
        memory_dtype="float16",
    )
