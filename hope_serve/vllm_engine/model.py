"""What vLLM is told of a model, and what its slots hold: rows of bytes on our side, parts over layers on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hope_serve.config import ConfigError, EngineConfig
from hope_serve.model.cms_state import delta_shapes
from hope_serve.model.serving.model import Loaded, context_limit, kind_of
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import Part, SlabLayout
from hope_serve.model.serving.slot_parts import OUTER, titans_parts
from hope_serve.model.serving.titans_kind import TitansKind

MAX_DRAWN = 16_384
"""Tokens of one reply, of a model whose state does not grow: vLLM keeps a row of ids as long as a text may become."""


@dataclass(frozen=True, kw_only=True)
class VllmModel:
    """A checkpoint as vLLM serves it.

    overrides: what its config lacks. dtype: what weights and activations are in.
    max_context_tokens: of a sequence, its reply included; of a model whose state does not grow, per call.
    memory: the layout of a memory's row. names: of a slot's parts, in the plugin's order; a memory's are those that
    ``memory`` has, over all layers, and the others a layer's state, as ``state`` has them with the layer's number.
    state: the layout of a conversation's row; None where conversations are read again from their tokens.
    """

    folder: Path
    dtype: str
    max_context_tokens: int
    memory: SlabLayout
    names: tuple[str, ...]
    num_layers: int
    state: SlabLayout | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rereads(self) -> bool:
        """Whether a conversation goes on from its tokens."""
        return self.state is None

    def loads(self, memory: Tensor | None, state: Tensor | None) -> list[Tensor | None]:
        """What a slot begins with, part by part over all layers; None for zeros."""
        found: dict[str, Tensor] = {} if memory is None else self.memory.of_row(memory)
        if state is not None and self.state is not None:
            parts = self.state.of_row(state)
            own = [name for name in self.names if name not in self.memory.parts]
            found |= {n: torch.stack([parts[f"{i}.{n}"] for i in range(self.num_layers)]) for n in own}
        return [found.get(name) for name in self.names]

    def state_row(self, kept: Sequence[Tensor]) -> Tensor:
        """What a conversation carries on, of a slot's parts over all layers."""
        assert self.state is not None
        named = dict(zip(self.names, kept, strict=True))
        return self.state.row(
            {f"{i}.{n}": t[i] for n, t in named.items() if n not in self.memory.parts for i in range(self.num_layers)}
        )


def vllm_model(
    loaded: Loaded, folder: Path, config: EngineConfig, *, device: str, part: Path | None = None
) -> VllmModel:
    """A checkpoint of any kind that vLLM serves.

    Args:
        part: the memory part that ``loaded`` was read with, when it is not the folder's own.

    Raises:
        ConfigError: its memories are not linear.
    """
    kind = kind_of(loaded.model)
    precision = Precision.of(kind.config, device, state=config.state_dtype)
    common: dict[str, Any] = {
        "folder": folder,
        "dtype": _name(precision.compute),
        "memory": SlabLayout({n: Part(shape, precision.deltas) for n, shape in delta_shapes(kind.config).items()}),
        "num_layers": kind.config.num_layers,
    }
    if isinstance(kind, TitansKind):
        return VllmModel(**common, **_titans(kind, precision, config, device))
    return VllmModel(
        **common,
        max_context_tokens=context_limit(kind, config.max_context_tokens),
        names=(OUTER,),
        overrides={
            "part": str(part or ""),
            "memory_rank": kind.config.levels[0].delta_shapes(kind.config.hidden_size)[1][1],
            "memory_dtype": _name(precision.deltas),
        },
    )


def _titans(kind: TitansKind, precision: Precision, config: EngineConfig, device: str) -> dict[str, Any]:
    hope = kind.model.config
    if hope.titans.memory != "linear":
        raise ConfigError(
            f"engine.backend vllm serves Titans of linear memories, and {hope.name} has {hope.titans.memory} ones; "
            "set it to native"
        )
    return {
        "max_context_tokens": config.max_prompt_tokens + MAX_DRAWN,
        "names": tuple(titans_parts(hope, precision)),
        "state": kind.state_layout(precision),
        "overrides": {"run_device": device, "state_dtype": config.state_dtype},
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
