"""What a database must do for a memory store: keep sealed bytes, and move an owner's version in one atomic step."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hope_serve.api import Durability

JOURNAL_VERSIONS = 1000
JOURNAL_SECONDS = 24 * 3600
"""A request id is remembered for at least this many versions and at least this long."""

Place = tuple[str, int]
"""A chunk: generation and number within it."""


@dataclass(frozen=True, kw_only=True)
class HeadRow:
    """The small facts of an owner's record, and the seal over them. The memory exists when ``version > tomb``.

    ``mark`` is drawn anew for every version: a failover that loses a version lets its number come again, not its mark.
    """

    version: int = 0
    mark: str = ""
    tomb: int = 0
    num_bytes: int = 0
    updated_at: float = 0.0
    seal: bytes = b""


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """A kept version's two sealed rows: how it came to be, and its manifest."""

    about: bytes
    manifest: bytes


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What an erasure removed."""

    versions: int
    sessions: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """An owner's record.

    Args:
        head: the small facts.
        data_key: the wrapped data key; empty before the first write and after an erasure.
        erased: what the latest erasure removed, if there was one.
        versions: the versions whose content is kept.
    """

    head: HeadRow = HeadRow()
    data_key: bytes = b""
    erased: Erased | None = None
    versions: Mapping[int, VersionRow] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JournalRow:
    """A request that was committed. ``version`` 0: it was erased since."""

    version: int
    digest: str
    result: bytes


@dataclass(frozen=True, kw_only=True)
class Write:
    """One commit, sealed. Times are Unix seconds.

    Args:
        base_version, base_mark: the version that must still be current.
        mark: of the new version.
        request, digest, result: the journal row.
        about, manifest: the new version's two rows.
        head_seal: seal over the head as the write leaves it.
        generation, chunks: new chunks, by number.
        drops: chunks that no kept version needs after this commit.
        live: generations that some kept version needs after this commit; None when that is not known.
        oldest_kept: manifests of versions below are dropped.
        num_bytes: bytes of the new version's tensors.
        now: time of the commit.
    """

    base_version: int
    base_mark: str
    mark: str
    request: str
    digest: str
    result: bytes
    about: bytes
    manifest: bytes
    head_seal: bytes
    generation: str
    chunks: Sequence[bytes]
    drops: Sequence[Place]
    live: frozenset[str] | None
    oldest_kept: int
    num_bytes: int
    now: float

    @property
    def version(self) -> int:
        """The version to be written."""
        return self.base_version + 1


class Verdict(enum.Enum):
    """What became of a write."""

    OK = "OK"
    DUPLICATE = "DUPLICATE"
    REUSED = "REUSED"
    CONFLICT = "CONFLICT"
    GONE = "GONE"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A verdict, with the journal row when the request was known, and else the head as it is now."""

    verdict: Verdict
    head: HeadRow = HeadRow()
    journal: JournalRow | None = None


@dataclass(frozen=True, kw_only=True)
class SessionRow:
    """A conversation's sealed record."""

    turn: int
    base_version: int
    generation: str
    manifest: bytes
    chunks: Sequence[bytes]


@dataclass(frozen=True, kw_only=True)
class OwnerRow:
    """A line of a listing: the owner's index, tenant index, sealed name and head; ``cursor`` begins the next page."""

    owner: str
    tenant: str
    name: bytes
    data_key: bytes
    head: HeadRow
    cursor: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a tenant's memories take."""

    owners: int
    num_bytes: int


class Backend(Protocol):
    """Rows of one database. ``owner`` is always the index that stands for a user. Calls raise HopeErrors only."""

    @property
    def durability(self) -> Durability:
        """Where a write is safe once it has returned."""
        ...

    async def open(self) -> None:
        """Connect and check."""
        ...

    async def close(self) -> None:
        """Let go, after what is under way."""
        ...

    async def ping(self) -> None:
        """Return when the database answers."""
        ...

    async def check(self) -> None:
        """Return when the database still gives what ``open`` checked. Raises FailedPrecondition or CorruptMemory."""
        ...

    async def now(self) -> float | None:
        """The database's clock, Unix seconds; None when it has none but this machine's."""
        ...

    async def claim_secret(self, offered: bytes) -> bytes:
        """The store's own wrapped secret: the one there, or else the offered one. Raises FailedPrecondition: lost."""
        ...

    async def secret(self) -> bytes:
        """The wrapped secret; empty when it is lost."""
        ...

    async def replace_secret(self, before: bytes, after: bytes) -> bool:
        """Replace the wrapped secret if it is still ``before``; whether it was."""
        ...

    async def claim_key(self, owner: str, tenant: str, name: bytes, offered: bytes, *, tomb: int) -> bytes:
        """The owner's wrapped data key: the one there, or else the offered one; empty if erased since ``tomb``."""
        ...

    async def head(self, owner: str) -> HeadRow:
        """The small facts; all zero for an unknown owner."""
        ...

    async def read(self, owner: str) -> Record:
        """The whole record."""
        ...

    async def chunks(self, owner: str, places: Sequence[Place]) -> Mapping[Place, bytes]:
        """The chunks that are there."""
        ...

    async def find(self, owner: str, request: str) -> JournalRow | None:
        """A journal row. When it is found, it is as durable as this database promises."""
        ...

    async def write(self, owner: str, write: Write) -> Outcome:
        """Check erasure, request id and base version, in this order, and write everything or nothing."""
        ...

    async def abouts(self, owner: str) -> Sequence[tuple[int, bytes]]:
        """Versions on record and how each came to be, oldest first."""
        ...

    async def erase(self, owner: str, base_version: int | None, tombstone: HeadRow) -> Erased | None:
        """Leave nothing but the tombstone if the head is at the base version (None: in any case); None when not."""
        ...

    async def owners(self, tenant: str | None, after: str, limit: int) -> Sequence[OwnerRow]:
        """Owners in order of their cursors, those beyond ``after``; of every tenant when None. May hold erased ones."""
        ...

    async def rekey(self, owner: str, before: bytes, after: bytes) -> bool:
        """Replace a wrapped data key if it is still ``before``; whether it was."""
        ...

    async def usage(self, tenant: str) -> Usage:
        """What the tenant's memories take, by what ``count_usage`` was told."""
        ...

    async def count_usage(self, tenant: str, owner: str, num_bytes: int) -> None:
        """The owner's memory has this size now."""
        ...

    async def marks(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Small notes of upkeep, those that are there; none of them is promised to last."""
        ...

    async def set_mark(self, name: str, mark: bytes) -> None:
        """Replace a note; an empty one removes it."""
        ...

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """Call ``tell`` with an owner whenever one is erased anywhere; with None when some may have been missed."""
        ...

    async def read_session(self, owner: str, session: str, now: float) -> SessionRow | None:
        """A conversation that has not expired."""
        ...

    async def write_session(self, owner: str, session: str, row: SessionRow, *, now: float, ttl: float) -> int | None:
        """Replace turn ``row.turn - 1``: None when done, else the turn that is stored; -1 when erased meanwhile."""
        ...

    async def delete_session(self, owner: str, session: str) -> bool:
        """Forget a conversation; whether there was one."""
        ...
