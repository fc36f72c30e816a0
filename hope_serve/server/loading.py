"""The model that a configuration asks for: a folder or a name, with its memory part."""

from __future__ import annotations

from hope_serve.config import ConfigError, ModelConfig, cache_folder
from hope_serve.convert.fetch import FetchError
from hope_serve.convert.named import bundled_part, checkpoint_folder
from hope_serve.model.load import load_model
from hope_serve.model.serving.model import Loaded


def loaded(model: ModelConfig) -> Loaded:
    """Read and check it; a base that goes by name is fetched once.

    Raises:
        ConfigError: the base could not be fetched.
        CheckpointError: a file is missing, altered, or not what the config says.
    """
    try:
        folder = checkpoint_folder(model.checkpoint, cache_folder())
    except (FetchError, OSError) as error:
        raise ConfigError(f"model.checkpoint {model.checkpoint}: {error}") from error
    return load_model(folder, model.part or bundled_part(model.checkpoint))
