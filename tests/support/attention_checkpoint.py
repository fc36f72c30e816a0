"""Converted checkpoints small enough for every test, and memory parts for them."""

from __future__ import annotations

import torch
from support.other_makers import hugging_face

from hope_serve.convert.read import read_source
from hope_serve.convert.write import convert
from hope_serve.model.attention_checkpoint import load_attention_checkpoint
from hope_serve.model.parts import MemoryPart, expected_shapes, save_part

CHUNK = 16


def converted(folder, kind="llama", **changes):
    """A checkpoint in ``folder / "served"``, and the model of transformers that it was made from."""
    model = hugging_face(folder / "source", kind, **changes)
    convert(read_source(folder / "source"), folder / "served")
    return folder / "served", model


def write_part(path, checkpoint, *, seed=3, chunk_size=CHUNK, closes=True):
    """A part as training might leave it: every number away from its neutral place."""
    loaded = load_attention_checkpoint(checkpoint)
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(loaded.config.shape(), rank=4, start_rank=2)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    tensors["log_rate"] = tensors["log_rate"] - 3.0
    tensors["decay_logit"] = tensors["decay_logit"] + 3.0
    part = MemoryPart(
        tensors=tensors, base=loaded.config.source.fingerprint, chunk_size=chunk_size, closes_with_lesson=closes
    )
    save_part(path, part, {})
    return path
