"""A HOPE model's dimensions and rules, as ``config.json`` states them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import msgspec
from hope_kernels.layout import TitansRule

from hope_serve.optim import LevelOptimizer, TaggedOptimizer, optimizer_of_word

SCHEMA_VERSION = 1
MAX_SIZE = 2**24
"""Of a vocabulary, a width, a rank: the product of two, in bytes, is still a number that every count can hold."""
MAX_CHUNK_SIZE = 2**16
"""Of Titans memories: every slot keeps a ring of so many rows."""
MAX_LAYERS, MAX_LEVELS, MAX_NAME = 1024, 64, 128
DEFAULT_MOMENTUM = 0.9


class TitansConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The self-modifying Titans of every block (arXiv 2512.24695, section 8.1)."""

    num_heads: int
    memory: Literal["linear", "mlp"] = "linear"
    read: Literal["causal", "snapshot"] = "causal"
    retention: Literal["delta", "full"] = "delta"
    chunk_size: int = 64
    memory_chunk_size: int = 0
    mlp_hidden_size: int = 0
    dgd_hidden: bool = False
    eta_max: float = 0.1
    alpha_min: float = 0.5

    def __post_init__(self) -> None:
        _within("titans.num_heads", self.num_heads, 1, MAX_SIZE)
        _within("titans.mlp_hidden_size", self.mlp_hidden_size, 0, MAX_SIZE)
        _within("titans.chunk_size", self.chunk_size, 1, MAX_CHUNK_SIZE)
        _within("titans.memory_chunk_size", self.memory_chunk_size, 0, MAX_CHUNK_SIZE)
        if (self.memory == "mlp") != (self.mlp_hidden_size > 0):
            raise ValueError(
                f"titans.mlp_hidden_size is {self.mlp_hidden_size} with titans.memory {self.memory!r}; "
                "it must be positive for 'mlp' and 0 for 'linear'"
            )
        self.rule()

    def rule(self) -> TitansRule:
        """The constants as the kernels take them."""
        return TitansRule(
            chunk_size=self.chunk_size,
            memory_chunk_size=self.memory_chunk_size,
            eta_max=self.eta_max,
            alpha_min=self.alpha_min,
            causal=self.read == "causal",
            retain_delta=self.retention == "delta",
            dgd_hidden=self.dgd_hidden,
        )


class LevelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One level of the Continuum Memory System (arXiv 2512.24695, Eqs 70-74).

    ``chunk_size`` 0 is a level that never learns online. The rates and decays themselves are trained
    parameters of the checkpoint; ``learning_rate`` and ``decay`` are where training starts them.

    ``optimizer`` is a tagged rule of ``hope_serve.optim``, or one of the words "gd" and "momentum"; ``momentum`` is the
    latter's beta.
    """

    hidden_size: int
    chunk_size: int = 0
    delta: Literal["full", "subspace"] = "subspace"
    rank: int = 0
    optimizer: str | TaggedOptimizer = "gd"
    momentum: float = DEFAULT_MOMENTUM
    learning_rate: float = 5e-3
    decay: float = 0.995

    def __post_init__(self) -> None:
        _within("levels.hidden_size", self.hidden_size, 1, MAX_SIZE)
        _within("levels.chunk_size", self.chunk_size, 0, MAX_SIZE)
        _within("levels.rank", self.rank, 0, MAX_SIZE)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"levels.momentum is {self.momentum}; it must lie in [0, 1)")
        if self.momentum != DEFAULT_MOMENTUM and not isinstance(self.optimizer, str):
            raise ValueError(
                f"levels.momentum is {self.momentum} beside a levels.optimizer with fields of its own; put it there"
            )
        self.rule()
        needs_rank = self.online and self.delta == "subspace"
        if needs_rank != (self.rank > 0):
            raise ValueError(
                f"levels.rank is {self.rank}; it must be positive for an online subspace level and 0 for any other"
            )
        if not 0 < self.learning_rate < math.inf or not 0 < self.decay < 1:
            raise ValueError(
                f"levels.learning_rate {self.learning_rate} must be positive and levels.decay {self.decay} in (0, 1)"
            )

    @property
    def online(self) -> bool:
        """Whether the level learns after training."""
        return self.chunk_size > 0

    def rule(self) -> LevelOptimizer:
        """The optimizer of this level."""
        if isinstance(self.optimizer, str):
            return optimizer_of_word(self.optimizer, momentum=self.momentum)
        return self.optimizer

    def delta_shapes(self, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes of one sequence's inner and outer delta, in a model of hidden size ``width``."""
        rank = self.rank if self.delta == "subspace" else 0
        return (self.hidden_size, rank or width), (width, rank or self.hidden_size)


class HopeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A HOPE model. ``levels`` run fast to slow, as the block applies them."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    titans: TitansConfig
    levels: tuple[LevelConfig, ...]
    norm_eps: float = 1e-6
    token_weight: Literal["none", "learned"] = "learned"
    memory_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    schema: int = SCHEMA_VERSION
    name: str = "hope"

    def __post_init__(self) -> None:
        if self.schema != SCHEMA_VERSION:
            raise ValueError(f"schema is {self.schema}; this release reads {SCHEMA_VERSION}")
        _within("vocab_size", self.vocab_size, 1, MAX_SIZE)
        _within("hidden_size", self.hidden_size, 1, MAX_SIZE)
        _within("num_layers", self.num_layers, 1, MAX_LAYERS)
        _within("levels (count)", len(self.levels), 1, MAX_LEVELS)
        _within("name (characters)", len(self.name), 1, MAX_NAME)
        if not self.name.isprintable():
            raise ValueError(f"name is {self.name!r}; use printable characters")
        if not 0 < self.norm_eps <= 1:
            raise ValueError(f"norm_eps is {self.norm_eps}; it must lie in (0, 1]")
        if self.hidden_size % self.titans.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.titans.num_heads}")
        online = [level.chunk_size for level in self.levels if level.online]
        for fast, slow in pairwise(online):
            if slow % fast:
                raise ValueError(f"levels.chunk_size {slow} is not a multiple of {fast}, the next faster level's")

    @property
    def head_size(self) -> int:
        """D, the width of one head."""
        return self.hidden_size // self.titans.num_heads

    @property
    def online_levels(self) -> tuple[int, ...]:
        """Indices of the levels that learn online, fast to slow."""
        return tuple(i for i, level in enumerate(self.levels) if level.online)

    @property
    def closes_with_lesson(self) -> bool:
        """Chunks go on from lesson to lesson, as the paper has it."""
        return False


def _within(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        limit = f"at least {least}" if value < least else f"at most {most}"
        raise ValueError(f"{field} is {value}; it must be {limit}")
