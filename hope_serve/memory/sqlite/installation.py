"""The file beside the database: a key of its own, and whether the database was ever finished."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hope_serve.errors import CorruptMemory, FailedPrecondition
from hope_serve.memory.keys import new_key
from hope_serve.memory.seal import KEY_BYTES

_FORMAT = 1


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    key: str
    born: bool


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What stands beside a database.

    Args:
        path: of this file.
        key: wraps data keys when no other key is configured.
        born: whether the database was complete once; from then on a missing or empty one is a loss, not a start.
    """

    path: Path
    key: bytes
    born: bool

    def mark_born(self) -> None:
        """Remember that the database is complete. Raises FailedPrecondition."""
        try:
            draft = _draft(_File(format=_FORMAT, key=self.key.hex(), born=True), self.path)
            draft.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise _unusable(self.path, error) from error


def key_path(database: Path) -> Path:
    """Where the file stands."""
    return database.with_name(database.name + ".key")


def find_installation(database: Path) -> Installation:
    """The file beside the database, made with mode 0600 when neither is there.

    Raises:
        CorruptMemory: the database was there and is gone, or the file is damaged.
        FailedPrecondition: the database is there and the file is not, or it cannot be read or written.
    """
    path = key_path(database)
    try:
        return _found(database, path)
    except OSError as error:
        raise _unusable(path, error) from error


def _found(database: Path, path: Path) -> Installation:
    if not path.exists():
        if database.exists():
            raise FailedPrecondition(
                f"{database} is there, but its key file {path} is not; put the key file back", reason="KEY_MISSING"
            )
        _create(path)
    installation = _load(path)
    if installation.born and (not database.exists() or database.stat().st_size == 0):
        raise CorruptMemory(
            f"{database} is missing or empty, but {path} says that it held memories; restore it, or remove the key "
            "file too to begin anew"
        )
    return installation


def _unusable(path: Path, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(
        f"the key file {path} cannot be read or written ({error.strerror}); check whether its folder is mounted "
        "read-only or full, and the permissions of file and folder"
    )


def _load(path: Path) -> Installation:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
        key = bytes.fromhex(found.key)
    except (msgspec.DecodeError, ValueError) as error:
        raise CorruptMemory(f"the key file {path} is damaged ({error}); restore it from a backup") from error
    if found.format != _FORMAT or len(key) != KEY_BYTES:
        raise CorruptMemory(f"the key file {path} has format {found.format} and a key of {len(key)} bytes; restore it")
    return Installation(path=path, key=key, born=found.born)


def _create(path: Path) -> None:
    """Make the file with a new key; if another process was first, its key stays."""
    draft = _draft(_File(format=_FORMAT, key=new_key().hex(), born=False), path)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
    sync_folder(path.parent)


def _draft(content: _File, path: Path) -> Path:
    """The content on the disk, under a name of its own beside ``path``."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(content))
        file.flush()
        os.fsync(file.fileno())
    return draft


def sync_folder(folder: Path) -> None:
    """Have the disk keep the folder's names."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
