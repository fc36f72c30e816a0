"""The model that a configuration asks for: a folder or a name, with its memory part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hope_serve.config import ConfigError, ModelConfig
from hope_serve.convert.fetch import FetchError
from hope_serve.convert.named import bundled_part, checkpoint_folder
from hope_serve.model.load import load_model
from hope_serve.model.serving.model import Loaded


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A checkpoint, and where it was read from. ``part``: the memory part that was named, by anybody."""

    loaded: Loaded
    folder: Path
    part: Path | None


def opened_model(model: ModelConfig) -> OpenedModel:
    """Read and check it; a base that goes by name is fetched once.

    Raises:
        ConfigError: the base could not be fetched.
        CheckpointError: a file is missing, altered, or not what the config says.
    """
    try:
        folder = checkpoint_folder(model.checkpoint)
    except (FetchError, OSError) as error:
        raise ConfigError(f"model.checkpoint {model.checkpoint}: {error}") from error
    part = model.part or bundled_part(model.checkpoint)
    return OpenedModel(loaded=load_model(folder, part), folder=folder, part=part)


def loaded(model: ModelConfig) -> Loaded:
    """The checkpoint alone; see ``opened_model``."""
    return opened_model(model).loaded
