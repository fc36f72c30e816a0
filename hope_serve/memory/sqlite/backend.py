"""The SQLite backend: each call is one transaction on the database's own threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hope_serve.api import Durability
from hope_serve.errors import CorruptMemory, Exhausted, FailedPrecondition
from hope_serve.memory.backend import (
    Erased,
    HeadRow,
    JournalRow,
    Outcome,
    OwnerRow,
    Place,
    Record,
    SessionRow,
    Usage,
    Write,
)
from hope_serve.memory.sqlite import marks, rows, session_rows
from hope_serve.memory.sqlite.database import Database
from hope_serve.memory.sqlite.full_disk import Dismantling
from hope_serve.memory.sqlite.installation import Installation


class SqliteBackend:
    """A ``Backend``; the calls are documented there.

    Args:
        path: of the database file; made when it is not there.
        installation: the file beside it.
    """

    def __init__(self, path: Path, installation: Installation) -> None:
        self._path = path
        self._inode = 0
        self._database = Database(path, born=installation.born)
        self._installation = installation
        self._listeners: list[Callable[[str | None], None]] = []

    @property
    def durability(self) -> Durability:
        """On this machine's disk."""
        return Durability.LOCAL_FSYNC

    async def open(self) -> None:
        """Connect and check the file."""
        try:
            await self._database.open()
            self._inode = self._path.stat().st_ino
        except BaseException:
            await self._database.close()
            raise

    async def close(self) -> None:
        """Finish what is under way and let go of the file."""
        await self._database.close()

    async def ping(self) -> None:
        """Return when the file can be read."""
        await self._database.read(lambda c: c.execute("SELECT count(*) FROM meta").fetchone())

    async def check(self) -> None:
        """The file and its key are where they were."""
        await asyncio.to_thread(self._check_files)

    async def now(self) -> None:
        """The file has no clock of its own."""

    async def claim_secret(self, offered: bytes) -> bytes:
        """The store's own wrapped secret."""
        secret = await self._database.write(lambda c: rows.claim_secret(c, offered))
        if not self._installation.born:
            self._installation.mark_born()
        return secret

    async def secret(self) -> bytes:
        """The wrapped secret."""
        return await self._database.read(rows.read_secret)

    async def replace_secret(self, before: bytes, after: bytes) -> bool:
        """Replace the wrapped secret."""
        return await self._database.write(lambda c: rows.replace_secret(c, before, after))

    async def claim_key(self, owner: str, tenant: str, name: bytes, offered: bytes, *, tomb: int) -> bytes:
        """The owner's wrapped data key."""
        return await self._database.write(lambda c: rows.claim_key(c, owner, tenant, name, offered, tomb))

    async def head(self, owner: str) -> HeadRow:
        """The small facts."""
        return await self._database.read(lambda c: rows.read_head(c, owner))

    async def read(self, owner: str) -> Record:
        """The whole record."""
        return await self._database.read(lambda c: rows.read_record(c, owner))

    async def chunks(self, owner: str, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """The chunks that are there."""
        return await self._database.read(lambda c: rows.read_chunks(c, owner, places))

    async def find(self, owner: str, request: str) -> JournalRow | None:
        """A journal row."""
        return await self._database.read(lambda c: rows.find(c, owner, request))

    async def write(self, owner: str, write: Write) -> Outcome:
        """Check and write, or nothing."""
        num_bytes = sum(map(len, write.chunks)) + len(write.manifest) + len(write.about) + len(write.result)
        try:
            return await self._database.write(lambda c: rows.write(c, owner, write), num_bytes=num_bytes)
        except Exhausted:  # a repeated request is told what it was told, whatever the disk is like
            refusal = await self._database.read(lambda c: rows.refusal(c, owner, write))
            if refusal is None:
                raise
            return refusal

    async def abouts(self, owner: str) -> Sequence[tuple[int, bytes]]:
        """Versions on record."""
        return await self._database.read(lambda c: rows.read_abouts(c, owner))

    async def erase(self, owner: str, base_version: int | None, tombstone: HeadRow) -> Erased | None:
        """Leave nothing but the tombstone, in the file and in its log."""
        try:
            erased = await self._database.write(lambda c: rows.erase(c, owner, base_version, tombstone))
        except Exhausted:
            parts = Dismantling(owner, base_version, tombstone)
            erased = await self._database.write_in_pieces(parts.remove_piece, parts.finish)
        if erased:
            await self._database.empty_log()
            await self._database.keep_reserve()
            for tell in self._listeners:
                tell(owner)
        return erased

    async def owners(self, tenant: str | None, after: str, limit: int) -> Sequence[OwnerRow]:
        """Owners in index order."""
        return await self._database.read(lambda c: rows.read_owners(c, tenant, after, limit))

    async def rekey(self, owner: str, before: bytes, after: bytes) -> bool:
        """Replace a wrapped data key."""
        return await self._database.write(lambda c: rows.rekey(c, owner, before, after))

    async def usage(self, tenant: str) -> Usage:
        """What the tenant's memories take."""
        return await self._database.read(lambda c: rows.read_usage(c, tenant))

    async def count_usage(self, tenant: str, owner: str, num_bytes: int) -> None:
        """Nothing to do: usage is summed from the heads themselves."""

    async def marks(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Those that are there."""
        return await self._database.read(lambda c: marks.read_marks(c, names))

    async def set_mark(self, name: str, mark: bytes) -> None:
        """Replace a note."""
        await self._database.write(lambda c: marks.set_mark(c, name, mark))

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """Call ``tell`` with an owner whenever this process erases one; other processes see the version."""
        self._listeners.append(tell)

    async def read_session(self, owner: str, session: str, now: float) -> SessionRow | None:
        """A conversation that has not expired."""
        return await self._database.read(lambda c: session_rows.read_session(c, owner, session, now))

    async def write_session(self, owner: str, session: str, row: SessionRow, *, now: float, ttl: float) -> int | None:
        """Replace the turn before."""
        num_bytes = sum(map(len, row.chunks)) + len(row.manifest)
        return await self._database.write(
            lambda c: session_rows.write_session(c, owner, session, row, now, ttl), num_bytes=num_bytes
        )

    async def delete_session(self, owner: str, session: str) -> bool:
        """Forget a conversation."""
        return await self._database.write(lambda c: session_rows.delete_session(c, owner, session))

    def _check_files(self) -> None:
        """What is written to a file that was removed or exchanged goes nowhere, and looks as if it did not."""
        try:
            found = self._path.stat().st_ino
        except OSError:
            found = 0
        if found != self._inode:
            raise CorruptMemory(f"{self._path} was removed or exchanged while it was open; restart the server")
        if not self._installation.path.exists():
            raise FailedPrecondition(
                f"the key file {self._installation.path} is gone; put it back", reason="SECRET_LOST"
            )
