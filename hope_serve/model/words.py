"""A checkpoint's config in the words that ``transformers`` has for it, and engines that speak as it does."""

from __future__ import annotations

from typing import Any

import msgspec

from hope_serve.model.attention_checkpoint import AttentionConfig
from hope_serve.model.config import HopeConfig

MAX_POSITIONS = 2**24
"""Of Titans, whose state has a constant size: any number that an engine can count to."""


def attention_words(config: AttentionConfig) -> dict[str, Any]:
    """Of the attention kind."""
    return {
        "architectures": ["HopeAttentionForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_key_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.wide_size,
        "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_context_tokens + 1,  # a text is weighed by one token more
        "tie_word_embeddings": config.tied,
        "qkv_bias": config.biases,
        "inverse_frequencies": list(config.inverse_frequencies),
        "dtype": config.dtype,
    }


def titans_words(config: HopeConfig) -> dict[str, Any]:
    """Of the Titans kind; ``hope`` is the whole config."""
    return {
        "architectures": ["HopeTitansForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "max_position_embeddings": MAX_POSITIONS,
        "dtype": config.dtype,
        "hope": msgspec.to_builtins(config),
    }
