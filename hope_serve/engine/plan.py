"""What a model takes on a device, from its config alone, and what is said of it."""

from __future__ import annotations

import logging
import math
import os
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
    """Bytes of one memory in the store, the sums of open chunks included where chunks stay open."""
    kept: torch.dtype = getattr(torch, config.memory_dtype)
    stored = (s for n, s in cms_shapes(config).items() if not (config.closes_with_lesson and ".gradient." in n))
    return sum(math.prod(shape) for shape in stored) * kept.itemsize


@dataclass(frozen=True, kw_only=True)
class DevicePlan:
    """Bytes on the device: the weights, one slot with its memory, and of one lesson what is kept and what is computed.

    lesson: kept while it is under way. segment: what the gradient of ``segment_tokens`` tokens is computed with, a
    whole chunk of the fastest level; as many are computed at once as ``lessons_at_once`` says. context_tokens: what a
    slot has room for, where its state grows with them.
    """

    weights: int
    state: int
    deltas: int
    lesson: int
    segment: int
    segment_tokens: int
    context_tokens: int = 0

    @classmethod
    def of(cls, kind: Kind, precision: Precision, config: EngineConfig) -> DevicePlan:
        """The plan of a model whose weights need not be there."""
        model = kind.config
        shapes, read = cms_shapes(model), delta_shapes(model)
        context = context_limit(kind, config.max_context_tokens)
        state = kind.state_bytes(precision, context)
        deltas = SlabLayout({name: Part(shape, precision.deltas) for name, shape in read.items()}).num_bytes
        learned = SlabLayout({name: Part(shape, torch.float32) for name, shape in shapes.items()}).num_bytes
        tokens = min((model.levels[i].chunk_size for i in model.online_levels), default=0)
        return cls(
            weights=kind.num_parameters * precision.compute.itemsize,
            state=state,
            deltas=deltas,
            lesson=state + deltas + learned,
            segment=tokens * kind.learning_bytes(precision),
            segment_tokens=tokens,
            context_tokens=context,
        )

    @property
    def slot(self) -> int:
        """Bytes of one slot."""
        return self.state + self.deltas

    def of_lessons(self, config: EngineConfig, device: str) -> int:
        """Bytes of all lessons that may be under way, and of the segments that are computed at once."""
        return (config.max_lessons + 1) * self.lesson + lessons_at_once(config, device) * self.segment

    def total(self, config: EngineConfig, device: str) -> int:
        """Bytes of everything that is kept from step to step, and of a step that learns."""
        return self.weights + (config.max_slots + 1) * self.slot + self.of_lessons(config, device)

    def said(self, config: EngineConfig, device: str) -> str:
        """What takes what, and what the longest Adapt amounts to."""
        at_once = lessons_at_once(config, device)
        parts = [
            f"weights {sized(self.weights)}",
            f"{config.max_slots} slots of {sized(self.slot)}" + self._context(),
            f"{config.max_lessons} lessons of {sized(self.lesson)}, {at_once} at once with {sized(self.segment)} each",
        ]
        whole = sized(self.total(config, device))
        longest = min(config.max_adapt_tokens, self.context_tokens or config.max_adapt_tokens)
        segments = -(-(longest - 1) // self.segment_tokens) if self.segment_tokens else 0
        return (
            f"{' + '.join(parts)} = {whole}; the longest Adapt, {longest:,} "
            f"tokens, takes no more: it is {segments:,} segments of {self.segment_tokens:,}, one after the other"
        )

    def shortfall(self, config: EngineConfig, device: str, free: int) -> str:
        """What is wrong with ``free`` bytes, and the keys that would make it right; empty when all fits."""
        missing = self.total(config, device) - free
        if missing <= 0:
            return ""
        remedies = [
            f"engine.max_slots to at most {most}" if (most := config.max_slots - -(-missing // self.slot)) > 0 else "",
            f"engine.max_lessons to at most {most}" if (most := self._most_lessons(config, device, missing)) else "",
            "engine.max_context_tokens to fewer" if self.context_tokens else "",
            "engine.state_dtype to float16" if config.state_dtype == "float32" else "",
        ]
        remedy = ", or ".join(filter(None, remedies))
        return (
            f"engine.max_slots {config.max_slots} and engine.max_lessons {config.max_lessons} need "
            f"{sized(self.total(config, device))} with the weights, and {device} has {sized(free)} to give; "
            + (f"set {remedy}" if remedy else "take a smaller model or a larger device")
        )

    def _context(self) -> str:
        return f" (a cache of {self.context_tokens:,} tokens each)" if self.context_tokens else ""

    def _most_lessons(self, config: EngineConfig, device: str, missing: int) -> int:
        """With so many lessons ``missing`` bytes would be there; 0 when none would do."""
        one = self.lesson + (self.segment if lessons_at_once(config, device) > 1 else 0)
        return max(0, config.max_lessons - -(-missing // one))


def lessons_at_once(config: EngineConfig, device: str) -> int:
    """How many lessons one pass computes. On a CPU several are no quicker than one after the other, and take more."""
    return 1 if torch.device(device).type == "cpu" else config.max_lessons


def check_fit(plan: DevicePlan, config: EngineConfig, device: str) -> None:
    """Say what is kept on the device, and refuse what does not fit: in a card's free memory, in a CPU's whole RAM.

    Raises:
        ConfigError: naming the keys that would make it fit.
    """
    if torch.device(device).type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0] * (1 - HEADROOM))
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    log.info("%s; %s has %s", plan.said(config, device), device, sized(free))
    if wrong := plan.shortfall(config, device, free):
        raise ConfigError(wrong)


def sized(count: int) -> str:
    """Bytes as people say them."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
