"""What a model takes on a device, from its config alone, and what is said of it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from hope_serve.api import ModelInfo
from hope_serve.config import ConfigError, EngineConfig
from hope_serve.model.cms_state import cms_shapes, delta_shapes
from hope_serve.model.serving.kind import Kind, ServedConfig
from hope_serve.model.serving.model import context_limit
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import Part, SlabLayout

log = logging.getLogger(__name__)

HEADROOM = 0.1
"""Share of a device's memory that is left to activations, graphs and the allocator."""


def model_info(kind: Kind, fingerprint: str, config: EngineConfig, precision: Precision, device: str) -> ModelInfo:
    """What GetModel answers."""
    model, context = kind.config, context_limit(kind, config.max_context_tokens)
    return ModelInfo(
        name=model.name,
        fingerprint=fingerprint,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_heads=kind.num_heads,
        num_parameters=kind.num_parameters,
        max_prompt_tokens=min(config.max_prompt_tokens, context or config.max_prompt_tokens),
        max_adapt_tokens=min(config.max_adapt_tokens, context or config.max_adapt_tokens),
        max_stream_tokens=config.max_stream_tokens,
        max_context_tokens=context,
        level_chunk_sizes=tuple(model.levels[i].chunk_size for i in model.online_levels),
        memory_bytes=memory_bytes(model),
        dtype=str(precision.compute).removeprefix("torch."),
        device=device,
        deterministic=config.deterministic,
    )


def memory_bytes(config: ServedConfig) -> int:
    """Bytes of one memory in the store, open accumulators included."""
    kept: torch.dtype = getattr(torch, config.memory_dtype)
    return sum(math.prod(shape) for shape in cms_shapes(config).values()) * kept.itemsize


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """Bytes on the device: the weights, one slot with its memory, one lesson under way."""

    weights: int
    state: int
    deltas: int
    lesson: int

    @classmethod
    def of(cls, kind: Kind, precision: Precision, config: EngineConfig) -> DevicePlan:
        """The plan of a model whose weights need not be there."""
        shapes, read = cms_shapes(kind.config), delta_shapes(kind.config)
        state = kind.state_bytes(precision, context_limit(kind, config.max_context_tokens))
        deltas = SlabLayout({name: Part(shape, precision.deltas) for name, shape in read.items()}).num_bytes
        learned = SlabLayout({name: Part(shape, torch.float32) for name, shape in shapes.items()}).num_bytes
        return cls(
            weights=kind.num_parameters * precision.compute.itemsize,
            state=state,
            deltas=deltas,
            lesson=state + deltas + learned,
        )

    @property
    def slot(self) -> int:
        """Bytes of one slot."""
        return self.state + self.deltas

    def total(self, config: EngineConfig) -> int:
        """Bytes of everything that is kept from step to step."""
        return self.weights + (config.max_slots + 1) * self.slot + (config.max_lessons + 1) * self.lesson


def check_fit(plan: DevicePlan, config: EngineConfig, device: str) -> None:
    """Say what is kept on a CUDA device, and refuse what does not fit.

    Raises:
        ConfigError: naming the keys that would make it fit.
    """
    if torch.device(device).type != "cuda":
        return
    free = int(torch.cuda.mem_get_info(device)[0] * (1 - HEADROOM))
    log.info(
        "weights take %s, each of %d slots %s, each of %d lessons %s; %s are free",
        *(_sized(plan.weights), config.max_slots, _sized(plan.slot), config.max_lessons, _sized(plan.lesson)),
        _sized(free),
    )
    if plan.total(config) <= free:
        return
    most = (free - plan.total(config) + config.max_slots * plan.slot) // plan.slot
    remedy = f"set engine.max_slots to at most {most}" if most > 0 else "take a smaller model or a larger device"
    raise ConfigError(
        f"engine.max_slots {config.max_slots} and engine.max_lessons {config.max_lessons} need "
        f"{_sized(plan.total(config))} with the weights, and {device} has {_sized(free)} to give; {remedy}, "
        "engine.max_lessons to fewer, or engine.state_dtype to float16"
    )


def _sized(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
