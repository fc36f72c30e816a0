"""A random model small enough for every test, on disk as a real checkpoint."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch

from hope_serve.model.checkpoint import save_checkpoint
from hope_serve.model.config import HopeConfig, LevelConfig, TitansConfig
from hope_serve.model.hope import HopeModel
from hope_serve.tokenizer import Tokenizer

TEXT = (
    "The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. "
    "My dog is called Biscuit, my sister lives in Bergen, and I like tea without sugar. "
    "What is my dog called? Your dog is called Biscuit. naïve café 日本語 🎉 "
)
VOCAB_SIZE = 384


def tiny_config(**changes) -> HopeConfig:
    options = dict(
        name="hope-tiny",
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_layers=2,
        titans=TitansConfig(num_heads=2, chunk_size=8, eta_max=0.3),
        levels=(
            LevelConfig(hidden_size=48, chunk_size=16, rank=4, learning_rate=0.05),
            LevelConfig(hidden_size=48, chunk_size=32, rank=4, learning_rate=0.05, optimizer="momentum"),
            LevelConfig(hidden_size=48),
        ),
        dtype="float32",
        memory_dtype="float16",
    )
    return HopeConfig(**(options | changes))


def tiny_model(*, seed: int = 0, dtype: torch.dtype = torch.float32, **changes) -> HopeModel:
    """Random weights with every gate and weight away from its neutral start."""
    torch.manual_seed(seed)
    model = HopeModel(tiny_config(**changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gates", "gate_outer", "token_weight.weight")):
                parameter.normal_(std=0.5)
    return model.requires_grad_(False).to(dtype)


@functools.cache
def tokenizer_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        Tokenizer.train([TEXT] * 4, VOCAB_SIZE).save(path)
        return path.read_bytes()


def tiny_tokenizer() -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(tokenizer_bytes())
        return Tokenizer.load(path)


def write_tiny_checkpoint(folder: Path, *, seed: int = 0, **changes) -> Path:
    """A checkpoint folder; the vocabulary is what the tiny text yields."""
    tokenizer = tokenizer_bytes()
    vocab = tiny_tokenizer().vocab_size
    save_checkpoint(folder, tiny_model(seed=seed, vocab_size=vocab, **changes), tokenizer=tokenizer, card="# tiny\n")
    return folder
