"""Checkpoints of every kind, by what their ``config.json`` says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from hope_serve.model.attention_checkpoint import AttentionCheckpointError
from hope_serve.model.attention_model import AttentionModel, LoadedAttention, load_attention, planned_attention
from hope_serve.model.checkpoint import (
    CONFIG,
    MAX_SMALL_BYTES,
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    planned_config,
)
from hope_serve.model.hope import HopeModel
from hope_serve.tokenizer import TokenizerError


def load_model(folder: Path, part: Path | None = None) -> Checkpoint | LoadedAttention:
    """Read and check a checkpoint of any kind.

    Args:
        part: a memory part, for a checkpoint of the attention kind.

    Raises:
        CheckpointError: a file is missing, altered, or not what the config says.
    """
    if not is_attention(folder):
        if part is not None:
            raise CheckpointError(f"{folder} brings its own memory and takes no part; leave out {part}")
        return load_checkpoint(folder)
    try:
        loaded = load_attention(folder, part)
        loaded.tokenizer()
    except (AttentionCheckpointError, TokenizerError) as error:
        raise CheckpointError(str(error)) from error
    return loaded


def planned_model(folder: Path, part: Path | None = None) -> HopeModel | AttentionModel:
    """The model without its numbers, from the config and the headers of its files.

    Raises:
        CheckpointError: as ``load_model``, as far as these tell.
    """
    if not is_attention(folder):
        config = planned_config(folder)
        with torch.device("meta"):
            return HopeModel(config)
    try:
        return planned_attention(folder, part)
    except AttentionCheckpointError as error:
        raise CheckpointError(str(error)) from error


def is_attention(folder: Path) -> bool:
    """Whether the folder's config names attention for its layers; other problems are the loaders' to name."""
    try:
        with (folder / CONFIG).open("rb") as file:
            stated = msgspec.json.decode(file.read(MAX_SMALL_BYTES))
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(stated, dict) and stated.get("layers") == "attention"
