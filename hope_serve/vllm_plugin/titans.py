"""Linear Titans as an attention-free model: this project's own layers, on states and memories in vLLM's slots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vllm.distributed.kv_transfer import has_kv_transfer_group
from vllm.model_executor.layers.mamba.mamba_utils import get_temporal_copy_spec
from vllm.model_executor.models.interfaces import HasInnerState, IsAttentionFree

from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.cms_state import delta_named
from hope_serve.model.config import HopeConfig
from hope_serve.model.serving.batch import Batch
from hope_serve.model.serving.model import ServedModel
from hope_serve.model.serving.precision import Precision
from hope_serve.model.serving.slab import Part
from hope_serve.model.serving.slot_parts import titans_parts
from hope_serve.model.serving.titans_kind import TitansStates
from hope_serve.vllm_plugin.slots import SlotLayer


class HopeTitansForCausalLM(nn.Module, HasInnerState, IsAttentionFree):  # type: ignore[misc]
    """A checkpoint of the Titans kind; every layer's slot holds its state and its memory."""

    @classmethod
    def get_mamba_state_shape_from_config(cls, vllm_config: Any) -> tuple[tuple[int, ...], ...]:
        """Of a layer's slot."""
        return tuple(part.shape for part in _parts(vllm_config.model_config.hf_config).values())

    @classmethod
    def get_mamba_state_dtype_from_config(cls, vllm_config: Any) -> tuple[torch.dtype, ...]:
        """Of a layer's slot."""
        return tuple(part.dtype for part in _parts(vllm_config.model_config.hf_config).values())

    @classmethod
    def get_mamba_state_copy_func(cls) -> tuple[Any, ...]:
        """How vLLM would copy a slot, if a prefix could be shared."""
        return (get_temporal_copy_spec,)

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        parts = _parts(self.config)
        self._names = tuple(parts)
        count = self.config.num_hidden_layers
        self._layers = [SlotLayer(list(parts.values()), f"{prefix}layers.{i}.slots") for i in range(count)]
        self.slots = nn.ModuleList(self._layers)
        self._served: ServedModel | None = None
        self._bound: tuple[Any, Any] | None = None

    def load_folder(self, folder: Path) -> None:
        """Read and check the checkpoint."""
        precision = _precision(self.config)
        self._served = ServedModel(load_checkpoint(folder).model, device=self.config.run_device, precision=precision)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """[N] to [N, d]; the head is tied."""
        assert self._served is not None
        return F.embedding(input_ids, self._served.weights()[0])

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,  # noqa: ARG002  the state knows
        intermediate_tensors: Any = None,  # noqa: ARG002
        inputs_embeds: Tensor | None = None,  # noqa: ARG002
        **_: Any,
    ) -> Tensor:
        """Hidden rows [N, d] after the final norm; rows of nobody are zeros."""
        assert self._served is not None
        hidden = torch.zeros(
            len(input_ids), self.config.hidden_size, dtype=self._served.precision.compute, device=input_ids.device
        )
        for begin, end, slots, starts in self._layers[0].runs():
            state, deltas = bound = self._bound or self._bind()
            if has_kv_transfer_group():  # before its connector is there, vLLM measures steps in pools that it drops
                self._bound = bound
            batch = Batch(tokens=input_ids[begin:end].long(), slots=slots.to(torch.int32), starts=starts)
            hidden[begin:end] = self._served.run(batch, state, deltas)
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """[N, d] to [N, V], fp32."""
        assert self._served is not None
        return self._served.logits(hidden_states)

    def _bind(self) -> tuple[Any, Any]:
        """vLLM's pools as the model takes them."""
        assert self._served is not None
        named = [dict(zip(self._names, layer.kv_cache, strict=True)) for layer in self._layers]
        views = {f"{i}.{name}": pool for i, layer in enumerate(named) for name, pool in layer.items()}
        levels = range(len(self._served.config.online_levels))
        deltas = tuple(tuple(delta_named(layer, f"{at}.delta") for at in levels) for layer in named)
        return TitansStates(self._served.layers, views), deltas


def _parts(config: Any) -> dict[str, Part]:
    return titans_parts(msgspec.convert(config.hope, HopeConfig), _precision(config))


def _precision(config: Any) -> Precision:
    return Precision.of(msgspec.convert(config.hope, HopeConfig), config.run_device, state=config.state_dtype)
