"""State slots: what one request has in each layer, and which rows of a step belong to which slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from vllm.config import get_current_vllm_config
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.v1.attention.backend import AttentionBackend
from vllm.v1.attention.backends.mamba_attn import BaseMambaAttentionMetadata, BaseMambaAttentionMetadataBuilder
from vllm.v1.attention.backends.registry import MambaAttentionBackendEnum

from hope_serve.model.serving.slab import Part


@dataclass
class SlotMetadata(BaseMambaAttentionMetadata):  # type: ignore[misc]
    """Which slots a step's rows belong to: first those of one token each, then those of prompts."""


class SlotMetadataBuilder(BaseMambaAttentionMetadataBuilder[SlotMetadata]):  # type: ignore[misc]
    """Makes ``SlotMetadata``; for a captured step its indices lie in buffers that stay."""

    metadata_cls = SlotMetadata

    def build(self, common_prefix_len: int, common_attn_metadata: Any, *args: Any, **kwargs: Any) -> Any:
        """A prompt's only token is as one that was drawn: its slot was filled, and captured steps know no prompts."""
        drawn = torch.zeros_like(common_attn_metadata.is_prefilling)
        return super().build(common_prefix_len, common_attn_metadata.replace(is_prefilling=drawn), *args, **kwargs)


class SlotBackend(AttentionBackend):  # type: ignore[misc]
    """What vLLM asks of a layer that has state and is not attention."""

    @staticmethod
    def get_name() -> str:
        """As logs name it."""
        return "HOPE_SLOTS"

    @staticmethod
    def get_builder_cls() -> type[SlotMetadataBuilder]:
        """Who makes a step's metadata."""
        return SlotMetadataBuilder

    @classmethod
    def is_ssm(cls) -> bool:
        """It has no keys and values."""
        return True


class Run(NamedTuple):
    """Rows ``begin`` to ``end`` of a step. slots: [B] of their sequences; starts: [B + 1] int32, None one row each."""

    begin: int
    end: int
    slots: Tensor
    starts: Tensor | None


class SlotLayer(nn.Module, MambaBase):  # type: ignore[misc]
    """A layer that has ``parts`` for every request, in vLLM's own pool; slot 0 is padding.

    Args:
        prefix: the layer's name, unique in the model.
    """

    def __init__(self, parts: Sequence[Part], prefix: str) -> None:
        super().__init__()
        self.parts, self.prefix = tuple(parts), prefix
        self.kv_cache = tuple(torch.tensor([]) for _ in parts)
        layers = get_current_vllm_config().compilation_config.static_forward_context
        if prefix in layers:
            raise ValueError(f"two layers are called {prefix}")
        layers[prefix] = self

    def get_state_shape(self) -> tuple[tuple[int, ...], ...]:
        """Of every part."""
        return tuple(part.shape for part in self.parts)

    def get_state_dtype(self) -> tuple[torch.dtype, ...]:
        """Of every part."""
        return tuple(part.dtype for part in self.parts)

    @property
    def mamba_type(self) -> MambaAttentionBackendEnum:
        """The backend that ``register`` named."""
        return MambaAttentionBackendEnum.CUSTOM

    def runs(self) -> list[Run]:
        """The rows of the current step; none while vLLM only measures."""
        found: Any = get_forward_context().attn_metadata
        if found is None:
            return []
        metadata: SlotMetadata = found[self.prefix] if isinstance(found, dict) else found
        runs, decoded = [], metadata.num_decode_tokens
        if metadata.num_decodes:
            slots = metadata.state_indices_tensor_d.flatten()
            runs.append(Run(0, len(slots), slots, None))
        if metadata.num_prefills:
            end = decoded + metadata.num_prefill_tokens
            slots = metadata.state_indices_tensor_p.flatten()
            runs.append(Run(decoded, end, slots, metadata.query_start_loc_p))
        return runs


def slot_layers(layers: dict[str, Any]) -> list[SlotLayer]:
    """Those of a model's layers that have slots, in order."""
    return [layer for layer in layers.values() if isinstance(layer, SlotLayer)]
