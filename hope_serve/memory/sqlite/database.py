"""One SQLite file off the event loop: a thread that writes, a thread that reads, errors with the project's names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hope_serve.errors import CorruptMemory, Exhausted, FailedPrecondition, HopeError, Unavailable
from hope_serve.memory.sqlite.full_disk import Reserve, require_room
from hope_serve.memory.sqlite.schema import prepare

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

MAX_WAITING = 1024
BUSY_SECONDS = 5.0
_MAY_NOT = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_SMALLEST_ROOM = 2**16
_CANNOT = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)


class Database:
    """Runs functions inside transactions. Several processes may share the file.

    Args:
        path: of the file; its folder must be there.
        born: whether the file held the tables before.
    """

    def __init__(self, path: Path, *, born: bool) -> None:
        self._path = path
        self._born = born
        self._reserve = Reserve(path)
        self._writing = _Lane(path, "hope-store-write")
        self._reading = _Lane(path, "hope-store-read")

    async def open(self) -> None:
        """Connect, check the file, make its tables if it is new."""
        try:
            await self._open()
        except Exhausted:  # the files beside the database take a little room as well
            await self.close()
            self._reserve.release()
            await self._open()
        else:
            await self.keep_reserve()

    async def _open(self) -> None:
        await self._writing.open()
        await self.write(lambda connection: prepare(connection, str(self._path), born=self._born))
        await self._writing.run(_set_durable)
        await self._reading.open()

    async def close(self) -> None:
        """Finish what is under way and let go of the file."""
        await self._reading.close()
        await self._writing.close()

    async def write(self, work: Work[T], *, num_bytes: int = 0) -> T:
        """Run the work in a write transaction: all of it or, when it raises, nothing.

        Args:
            num_bytes: that it adds. Raises Exhausted where there is room for them in the log alone: it could not be
                emptied into the file any more, and what is erased would have to wait in it.
        """

        def guarded(connection: sqlite3.Connection) -> T:
            if num_bytes:
                require_room(connection, self._path, num_bytes)
            return _transact(connection, work, "BEGIN IMMEDIATE")

        return await self._writing.run(guarded)

    async def read(self, work: Work[T]) -> T:
        """Run the work on one consistent state of the file."""
        return await self._reading.run(lambda connection: _transact(connection, work, "BEGIN"))

    async def write_in_pieces(self, remove_piece: Work[bool], finish: Work[T]) -> T:
        """Remove piece after piece, each in a transaction of its own, then run the last; all of it in the room that
        was kept for a full disk. Nothing else of this process is written meanwhile.
        """

        def work(connection: sqlite3.Connection) -> T:
            self._reserve.release()
            _shorten_log(connection)
            while _transact(connection, remove_piece, "BEGIN IMMEDIATE"):
                _shorten_log(connection)
            return _transact(connection, finish, "BEGIN IMMEDIATE")

        return await self._writing.run(work)

    async def empty_log(self) -> None:
        """Move the log's pages into the file and empty the log, so that deleted bytes are gone from both."""
        if await self._writing.run(_empty_log):
            raise Unavailable(f"another process still reads older pages of {self._path}; repeat the call")

    async def keep_reserve(self) -> None:
        """Take the room for erasing on a full disk, where there is some."""
        await asyncio.to_thread(self._reserve.keep)


class _Lane:
    """A connection and the thread it lives on; at most ``MAX_WAITING`` calls wait for it."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._lock = threading.Lock()
        self._waiting = 0
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        self._connection = await asyncio.wrap_future(self._thread.submit(self._connect))

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._connection is not None:
            await asyncio.wrap_future(thread.submit(self._connection.close))
        thread.shutdown()

    async def run(self, work: Work[T]) -> T:
        if self._thread is None or self._connection is None:
            raise Unavailable("the store is closed")
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise Exhausted(f"{MAX_WAITING} calls already wait for the store; try again later")
            self._waiting += 1
        job = self._thread.submit(self._run, self._connection, work)
        job.add_done_callback(self._count_down)
        return await asyncio.wrap_future(job)

    def _run(self, connection: sqlite3.Connection, work: Work[T]) -> T:
        with named_errors(self._path):
            return work(connection)

    def _count_down(self, _job: Future[T]) -> None:
        with self._lock:
            self._waiting -= 1

    def _connect(self) -> sqlite3.Connection:
        with named_errors(self._path):
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.text_factory = _decode
            return connection


def _decode(text: bytes) -> str:
    """Damaged text is no match for anything, and no error of its own."""
    return text.decode(errors="replace")


def _transact(connection: sqlite3.Connection, work: Work[T], begin: str) -> T:
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _empty_log(connection: sqlite3.Connection) -> bool:
    """Whether somebody was still reading, so that it could not be emptied."""
    busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return bool(busy)


def _shorten_log(connection: sqlite3.Connection) -> None:
    """Where there is no room for that either, the log goes on growing for as long as it can."""
    with contextlib.suppress(sqlite3.OperationalError):
        _empty_log(connection)


def _set_durable(connection: sqlite3.Connection) -> None:
    """Every commit is on the disk before it returns; freed pages are zeroed."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # sqlite does not wait here for a process that opens the file as well
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """SQLite's errors with the project's names."""
    try:
        yield
    except sqlite3.Error as error:
        raise _named(error, path) from error


def _named(error: sqlite3.Error, path: Path) -> HopeError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptMemory(f"{path} is damaged ({error}); restore it from a backup")
    if code == sqlite3.SQLITE_FULL or (code in _CANNOT and _is_full(path)):
        return Exhausted(f"no room left for {path} ({error}); free space and try again", reason="STORE_FULL")
    if code in _MAY_NOT or (code in _CANNOT and not _is_writable(path)):
        return FailedPrecondition(
            f"{path} may not be written ({error}); check whether its folder is mounted read-only, and the permissions "
            "of file and folder"
        )
    return Unavailable(f"{path} does not answer ({error}); try again with the same request id")


def _is_full(path: Path) -> bool:
    """A full disk fails a file that is mapped into memory, or made, with other errors than one that is written."""
    return shutil.disk_usage(path.parent).free < _SMALLEST_ROOM


def _is_writable(path: Path) -> bool:
    """SQLite calls a file that it may not write one that it cannot open, when it needs others beside it."""
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
