"""A database with its key file, copied while it is in use, and put in the place of another that is not.

A plain copy of the database file alone is a state of some time ago: what was written last is in the log beside it.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from hope_serve.errors import CorruptMemory, FailedPrecondition
from hope_serve.memory.sqlite.database import named_errors
from hope_serve.memory.sqlite.installation import key_path, sync_folder

BUSY_SECONDS = 1.0
_log = logging.getLogger(__name__)


def copy_database(source: Path, target: Path) -> None:
    """One consistent state of the source, as one file with its key file; servers may go on writing to the source.

    Raises:
        FailedPrecondition: the source or its key file is not there, or cannot be read, or the copy not be written.
        CorruptMemory: the source's pages are not what SQLite wrote.
        Exhausted: no room for the copy.
    """
    for path in (source, key_path(source)):
        if not path.is_file():
            raise FailedPrecondition(f"{path} is not there; a store is a database and the key file beside it")
    try:
        _copy_key(key_path(source), key_path(target))
        target.touch(0o600)
    except OSError as error:
        raise FailedPrecondition(f"{target} cannot be written: {error.strerror}") from error
    with named_errors(source), closing(_connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        found = new.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise CorruptMemory(f"{source} is damaged ({found}); restore it from a backup")
    settle(target)


def settle(database: Path) -> None:
    """Make the file all there is of a database that nobody has open, and have the disk keep it."""
    with named_errors(database), closing(_connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    _sync(database)


def place_database(source: Path, target: Path) -> str:
    """Move a database and its key file into the place of another; what was there is kept beside it.

    At every moment in between there is a database with the key it is read with, or one that is refused: never none.

    Returns:
        the suffix under which the former files are kept; "" when there were none.

    Raises:
        FailedPrecondition: somebody has the database open that is to be replaced.
    """
    _require_unused(target)
    try:
        suffix = _set_aside(target)
        key_path(source).replace(key_path(target))
        source.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise FailedPrecondition(f"{target} cannot be replaced: {error.strerror}") from error
    return suffix


def _require_unused(database: Path) -> None:
    if not database.exists():
        return
    try:
        with closing(_connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # empties the log; nobody else may be there for that
    except sqlite3.OperationalError as error:
        raise FailedPrecondition(
            f"{database} is in use ({error}); stop every server and job that has it open, then restore"
        ) from error
    except sqlite3.DatabaseError as error:
        _log.warning("%s is damaged (%s) and is replaced", database, error)


def _set_aside(target: Path) -> str:
    suffix = time.strftime(".replaced-%Y%m%dT%H%M%S", time.gmtime())
    kept = [path for path in (target, key_path(target)) if path.exists()]
    for path in kept:
        os.link(path, path.with_name(path.name + suffix))
    for ending in ("-wal", "-shm"):  # of a damaged one; another database's log is none for the new
        log = target.with_name(target.name + ending)
        if log.exists():
            log.rename(log.with_name(log.name + suffix))
    return suffix if kept else ""


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _copy_key(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as written, source.open("rb") as read:
        shutil.copyfileobj(read, written)
        written.flush()
        os.fsync(written.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)
