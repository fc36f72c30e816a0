"""What is served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The model an engine serves, and what one user's memory of it weighs.

    max_stream_tokens: of one AdaptStream. max_context_tokens: of a sequence, its replies included; 0 is any number.
    """

    name: str
    fingerprint: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_parameters: int
    max_prompt_tokens: int
    max_adapt_tokens: int
    max_stream_tokens: int
    level_chunk_sizes: tuple[int, ...]
    memory_bytes: int
    dtype: str
    device: str
    deterministic: bool
    max_context_tokens: int = 0
