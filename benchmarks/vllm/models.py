"""Checkpoints of random weights in the shapes that are measured, and memories for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from hope_serve.model.attention_checkpoint import (
    CONFIG,
    AttentionConfig,
    SourceNote,
    expected_tensors,
    save_attention_checkpoint,
)
from hope_serve.model.parts import MemoryPart, expected_shapes, save_part
from hope_serve.model.words import attention_words

FINGERPRINT = "0" * 64


@dataclass(frozen=True)
class Shape:
    """A Llama shape and the rank of its memories."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    wide: int
    vocab: int
    rank: int

    @property
    def token_bytes(self) -> int:
        """Keys and values of one token, 16 bit."""
        return 2 * self.layers * self.key_heads * (self.hidden // self.heads) * 2


SHAPES = {
    "tiny": Shape(128, 2, 4, 2, 256, 512, 4),
    "smollm2": Shape(576, 30, 9, 3, 1536, 49_152, 32),
    "1.3b": Shape(2048, 24, 16, 16, 6144, 32_000, 16),
}


def config_of(name: str, dtype: str = "float16") -> AttentionConfig:
    """As a converted checkpoint would say it."""
    shape = SHAPES[name]
    size = shape.hidden // shape.heads
    return AttentionConfig(
        name=name,
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_layers=shape.layers,
        num_heads=shape.heads,
        num_key_heads=shape.key_heads,
        head_size=size,
        wide_size=shape.wide,
        norm_eps=1e-5,
        inverse_frequencies=tuple(10_000 ** (-2 * i / size) for i in range(size // 2)),
        biases=False,
        tied=name != "1.3b",
        max_context_tokens=16_384,
        stop_tokens=(0,),
        source=SourceNote(name=name, licence="none", fingerprint=FINGERPRINT),
        dtype=dtype,
    )


def write_checkpoint(folder: Path, name: str, dtype: str = "float16") -> Path:
    """A checkpoint and its part; returns the part's path."""
    config, generator = config_of(name, dtype), torch.Generator().manual_seed(0)

    def draw(size: tuple[int, ...]) -> Tensor:
        values = torch.randn(size, generator=generator)
        return 1 + values * 0.1 if len(size) == 1 else values * 1.5 * size[-1] ** -0.5

    tensors = ((n, draw(size)) for n, size in expected_tensors(config).items())
    save_attention_checkpoint(folder, config, tensors, tokenizer=b"{}", chat_template="", card="# random\n")
    shapes = expected_shapes(config.shape(), rank=SHAPES[name].rank, start_rank=1)
    part = {n: torch.randn(size, generator=generator) * size[-1] ** -0.5 * 0.1 for n, size in shapes.items()}
    save_part(folder / "memory.safetensors", MemoryPart(tensors=part, base=FINGERPRINT, chunk_size=256), {})
    return folder / "memory.safetensors"


def write_config(folder: Path, name: str) -> None:
    """A folder for vLLM's own Llama, and for ours without its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(name)
    (folder / CONFIG).write_bytes(msgspec.json.encode(config))
    llama = attention_words(config) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": config.max_context_tokens,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "hidden_act": "silu",
    }
    (folder / "llama").mkdir(exist_ok=True)
    (folder / "llama" / CONFIG).write_bytes(msgspec.json.encode(llama))


def memories(name: str, count: int, *, pinned: bool) -> list[Tensor]:
    """[L, d, r] on the host, one a user."""
    shape = SHAPES[name]
    drawn = torch.randn(8, shape.layers, shape.hidden, shape.rank, generator=torch.Generator().manual_seed(1)) * 0.01
    made = []
    for user in range(count):
        row = (drawn[user % len(drawn)] * (1 + user / count)).half()
        made.append(row.pin_memory() if pinned else row)
    return made
