"""Users' memories beside vLLM's cache, and which rows of a step read which."""

from __future__ import annotations

from typing import Any

import torch
from vllm.forward_context import get_forward_context

from hope_serve.model.serving.block_pool import BlockPool, Rows

CONTEXT_NAME = "hope.memories"


class Memories(BlockPool):
    """The pool of one model, whose rows are told apart by the metadata of ``layer``, one of attention.

    A second kind of cache would cost vLLM's host more than reading B costs the card.
    """

    def __init__(self, vllm_config: Any, layer: str) -> None:
        config, count = vllm_config.model_config.hf_config, vllm_config.scheduler_config.max_num_seqs + 1
        shape = (count, config.num_hidden_layers, config.hidden_size, config.memory_rank)
        super().__init__(shape, getattr(torch, config.memory_dtype))
        self._layer = layer
        vllm_config.compilation_config.static_forward_context[CONTEXT_NAME] = self

    def rows(self) -> Rows | None:
        """Those of the current step; None while vLLM only measures.

        Raises:
            ValueError: the attention backend does not say which blocks its rows read.
        """
        found: Any = get_forward_context().attn_metadata
        if found is None:
            return None
        step = found[self._layer] if isinstance(found, dict) else found
        if not hasattr(step, "block_table"):
            raise ValueError(
                f"vLLM's attention backend gives {type(step).__name__}, which names no blocks; set "
                "vllm.attention_backend to TRITON_ATTN or FLASH_ATTN"
            )
        slots = self.slots_of(step.block_table)
        if step.max_query_len == 1:
            return Rows(len(slots), slots, None)
        return Rows(step.num_actual_tokens, slots, step.query_start_loc[: len(slots) + 1])
