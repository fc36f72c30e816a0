"""Erasing on a full disk: room that was kept for it, and a memory taken apart in pieces that fit into that room.

What is deleted is overwritten, and every page so changed passes through the log, which has to grow for it. The pieces
go one by one, and the log is emptied into the database's own pages after each. Between two of them the memory is
there and damaged, which only its erasure mends; that is done in the end, whole, as on any other disk.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import sqlite3
from pathlib import Path

from hope_serve.errors import Exhausted
from hope_serve.memory.backend import Erased, HeadRow
from hope_serve.memory.sqlite import rows

MAX_RESERVE_BYTES = 8 * 2**20
"""Enough for a chunk of content in the log, and for what the log still held when the disk was full."""
RESERVE_SHARE = 4
"""Of a small disk, no more than a quarter of what is free."""
_log = logging.getLogger(__name__)


class Reserve:
    """A file beside the database that takes room, to be let go of when an erasure needs it."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".reserve")

    def keep(self) -> None:
        """Take the room if it is not taken yet; on a disk without that much left a warning is all."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                _take(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning(
                "no room to keep in %s (%s): if the disk is full, erasing a memory may be refused until there is some",
                self._path,
                error.strerror,
            )

    def release(self) -> None:
        """Let go of the room."""
        self._path.unlink(missing_ok=True)


def require_room(connection: sqlite3.Connection, database: Path, num_bytes: int) -> None:
    """Refuse a write that the log would take and the file behind it would not.

    Raises:
        Exhausted: naming the room there is, and the room it takes.
    """
    log = database.with_name(database.name + "-wal")
    free, unmoved = _free(database), log.stat().st_size if log.exists() else 0
    if free >= unmoved + 2 * num_bytes:
        return
    _, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    page, unused = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "freelist_count"))
    needed = num_bytes + max(0, num_bytes + page * (frames - moved - unused))
    if (free := _free(database)) < needed:
        raise Exhausted(
            f"no room left for {database}: log and file together take {needed:,} bytes, and {free:,} are free; "
            "free space and try again",
            reason="STORE_FULL",
        )


def _free(database: Path) -> int:
    return shutil.disk_usage(database.parent).free


class Dismantling:
    """The content of one owner, removed piece by piece.

    Args:
        base_version: as for ``Backend.erase``; once the head is another, nothing more is removed.
    """

    def __init__(self, owner: str, base_version: int | None, tombstone: HeadRow) -> None:
        self._owner = owner
        self._base_version = base_version
        self._tombstone = tombstone
        self._removed = {"versions": 0, "sessions": 0}

    def remove_piece(self, connection: sqlite3.Connection) -> bool:
        """Remove the next piece; whether there was one."""
        if self._base_version not in (None, rows.read_head(connection, self._owner).version):
            return False
        return any(
            (
                self._remove(connection, "chunks", "rowid", 1),
                self._remove(connection, "session_chunks", "rowid", 1),
                self._remove(connection, "sessions", "session", 1),
                self._remove(connection, "versions", "version", 8),
                self._blank_journal(connection, 64),
            )
        )

    def finish(self, connection: sqlite3.Connection) -> Erased | None:
        """See ``Backend.erase``; counts what went before."""
        erased = rows.erase(connection, self._owner, self._base_version, self._tombstone)
        if erased is None:
            return None
        whole = dataclasses.replace(
            erased,
            versions=erased.versions + self._removed["versions"],
            sessions=erased.sessions + self._removed["sessions"],
        )
        rows.count_erased(connection, self._owner, whole)
        return whole

    def _remove(self, connection: sqlite3.Connection, table: str, key: str, count: int) -> int:
        some = f"SELECT {key} FROM {table} WHERE owner = ?1 LIMIT ?2"  # noqa: S608 - our own names
        done = connection.execute(f"DELETE FROM {table} WHERE owner = ?1 AND {key} IN ({some})", (self._owner, count))  # noqa: S608
        if table in self._removed:
            self._removed[table] += done.rowcount
        return done.rowcount

    def _blank_journal(self, connection: sqlite3.Connection, count: int) -> int:
        some = "SELECT request FROM journal WHERE owner = ?1 AND length(result) > 0 LIMIT ?2"
        return connection.execute(
            f"UPDATE journal SET version = 0, digest = '', result = x'' WHERE owner = ?1 AND request IN ({some})",  # noqa: S608
            (self._owner, count),
        ).rowcount


def _take(descriptor: int) -> None:
    kept, disk = os.fstat(descriptor).st_size, os.fstatvfs(descriptor)
    wanted = min(MAX_RESERVE_BYTES, int((kept + disk.f_bavail * disk.f_frsize) / RESERVE_SHARE))
    if kept >= wanted > 0:
        return
    try:
        os.posix_fallocate(descriptor, 0, max(wanted, 1))
    except OSError:
        os.ftruncate(descriptor, 0)
        raise
