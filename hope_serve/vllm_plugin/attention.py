"""Hope-Attention on vLLM's own attention and matrices; a request's memory moves every layer's down projection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.rotary_embedding import RotaryEmbedding
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from hope_serve.vllm_plugin.memories import Memories


class Rotations(RotaryEmbedding):  # type: ignore[misc]
    """Rotary embedding by given frequencies."""

    def __init__(self, config: Any, dtype: torch.dtype) -> None:
        self._frequencies = config.inverse_frequencies
        size = config.head_dim
        super().__init__(size, size, config.max_position_embeddings, 0.0, is_neox_style=True, dtype=dtype)

    def _compute_inv_freq(self, base: float) -> Tensor:  # noqa: ARG002
        return torch.tensor(self._frequencies, dtype=torch.float32)


class Layer(nn.Module):
    """Attention, then SwiGLU with [W_down; A] as one matrix."""

    def __init__(self, config: Any, rotations: Rotations, cache_config: Any, prefix: str) -> None:
        super().__init__()
        d, e, wide, eps = config.hidden_size, config.head_dim, config.intermediate_size, config.rms_norm_eps
        heads, key_heads = config.num_attention_heads, config.num_key_value_heads
        self.attention_norm, self.mlp_norm = RMSNorm(d, eps=eps), RMSNorm(d, eps=eps)
        self.query_key_value = QKVParallelLinear(
            d, e, heads, key_heads, bias=config.qkv_bias, prefix=f"{prefix}.query_key_value"
        )
        self.rotations = rotations
        local = self.query_key_value
        self.sizes = [local.num_heads * e, local.num_kv_heads * e, local.num_kv_heads * e]
        name, key_heads = f"{prefix}.attention", local.num_kv_heads
        self.attention = Attention(
            local.num_heads, e, e**-0.5, num_kv_heads=key_heads, cache_config=cache_config, prefix=name
        )
        self.output = RowParallelLinear(heads * e, d, bias=False, prefix=f"{prefix}.output")
        self.gate_up = MergedColumnParallelLinear(d, [wide] * 2, bias=False, prefix=f"{prefix}.gate_up")
        self.swiglu = SiluAndMul()
        self.down = RowParallelLinear(wide, d + config.memory_rank, bias=False, prefix=f"{prefix}.down")

    def forward(self, positions: Tensor, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(y and p of the down projection [N, d + r], residual). x: what the layer before added, not yet in it."""
        if residual is None:
            x, residual = self.attention_norm(x), x
        else:
            x, residual = self.attention_norm(x, residual)
        query, key, value = self.query_key_value(x)[0].split(self.sizes, -1)
        query, key = self.rotations(positions, query, key)
        x, residual = self.mlp_norm(self.output(self.attention(query, key, value))[0], residual)
        return self.down(self.swiglu(self.gate_up(x)[0]))[0], residual


class HopeAttentionForCausalLM(nn.Module):
    """A checkpoint of the attention kind, with its memory part merged in."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        config = self.config = vllm_config.model_config.hf_config
        self.embedding = VocabParallelEmbedding(config.vocab_size, config.hidden_size)
        rotations = Rotations(config, vllm_config.model_config.dtype)
        self.layers = nn.ModuleList(
            Layer(config, rotations, vllm_config.cache_config, f"{prefix}layers.{i}")
            for i in range(config.num_hidden_layers)
        )
        self.memories = Memories(vllm_config, f"{prefix}layers.0.attention")
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.head = ParallelLMHead(config.vocab_size, config.hidden_size, prefix=f"{prefix}head")
        if config.tie_word_embeddings:
            self.head = self.head.tie_weights(self.embedding)
        self.logits = LogitsProcessor(config.vocab_size)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """[N] to [N, d]."""
        x: Tensor = self.embedding(input_ids)
        return x

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: Any = None,  # noqa: ARG002
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Hidden rows [N, d] after the final norm."""
        x = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        residual: Tensor | None = None
        rows = self.memories.rows()
        for i, layer in enumerate(self.layers):
            given, residual = layer(positions, x, residual)
            x = self.memories.moved(i, given, rows)
        hidden: Tensor = self.norm(x, residual)[0]
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """[N, d] to [N, V]."""
        logits: Tensor = self.logits(self.head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """By parameter; fused matrices come fused."""
        parameters = dict(self.named_parameters())
        loaded = set()
        for name, tensor in weights:
            getattr(parameters[name], "weight_loader", default_weight_loader)(parameters[name], tensor)
            loaded.add(name)
        return loaded
