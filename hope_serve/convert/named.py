"""Checkpoints by name: a base that is fetched once, and the memory part that this package brings for it."""

from __future__ import annotations

import logging
from pathlib import Path

from hope_serve.config import BUNDLED_CHECKPOINT, cache_folder
from hope_serve.convert import fetch as fetching
from hope_serve.convert.fetch import FetchError, fetch, fetched
from hope_serve.model.attention_model import PART

BUNDLED = Path(__file__).parent.parent / "checkpoints"

log = logging.getLogger(__name__)


def checkpoint_folder(checkpoint: Path, cache: Path | None = None, *, may_fetch: bool = True) -> Path:
    """The folder that ``checkpoint`` stands for: itself, hope-demo of this package, or a base in the cache folder.

    Args:
        cache: another folder than ``cache_folder()``.
        may_fetch: bring a base that is not there yet.

    Raises:
        ConfigError: there is no place for a cache folder, and one is needed.
        FetchError: the base is not there, and could not or may not be fetched.
    """
    if checkpoint == Path(BUNDLED_CHECKPOINT.name) and not checkpoint.exists():
        return BUNDLED_CHECKPOINT
    name = _name(checkpoint)
    if not name:
        return checkpoint
    cache = cache or cache_folder()
    if there := fetched(name, cache):
        return there
    if not may_fetch:
        raise FetchError(
            f"{name} is not in {cache} yet; run `hope-serve fetch {name}` once, with the registry in reach"
        )
    log.info("%s is fetched once, into %s", name, cache)
    return fetch(name, cache)


def bundled_part(checkpoint: Path) -> Path | None:
    """The memory part of a base that is asked for by name; None where this package brings none."""
    part = BUNDLED / _name(checkpoint) / PART
    return part if _name(checkpoint) and part.is_file() else None


def _name(checkpoint: Path) -> str:
    """The published base that is meant, unless a folder is called so."""
    name = str(checkpoint)
    return name if name in fetching.PUBLISHED and not checkpoint.exists() else ""
