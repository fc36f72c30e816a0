"""What a memory store promises: versioned, sealed, exactly once. Every store passes one contract test-suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hope_serve.api import Durability, ErasureReceipt, MemorySummary, Owner, Source, VersionReport
from hope_serve.memory.snapshot import Counter, Snapshot

NO_UNMOVED: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where a memory stands.

    Args:
        version: the number that the next commit must name as its base. 0: never written. It goes on counting after
            an erasure.
        mark: drawn anew for every version. Equal version and mark mean equal content; a version number alone may come
            again, with another content, when a failover lost what had not been acknowledged.
        exists: False when never written, or erased and not written since.
        num_bytes: bytes of the tensors of the current version.
        updated_at: Unix seconds of the last change; 0 when never written.
    """

    version: int
    exists: bool
    mark: str = ""
    num_bytes: int = 0
    updated_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StoredMemory:
    """A version read back: its content, and how it came to be. ``mark`` as in ``Head``; "" for an earlier version."""

    version: int
    snapshot: Snapshot
    state_digest: str
    about: VersionReport
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class MemoryDescription:
    """A version without its tensors. ``sources``: what its content learned from, oldest first."""

    version: int
    fingerprint: str
    schema: int
    counters: Mapping[str, Counter]
    num_bytes: int
    state_digest: str
    sources: tuple[Source, ...]
    about: VersionReport


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A new version to be written.

    Args:
        base_version: ``Head.version`` of the memory it was computed from.
        base_mark: its ``mark``. None compares versions alone: only for stores that cannot fail over.
        request_id: at most one version per owner ever carries it.
        request_digest: digest of the request's payload; the same id with another digest is refused.
        snapshot: what moved: new or changed tensors, and all counters.
        unmoved: names of the base version's tensors that stay as they are; they are neither hashed nor written.
        result: the reply to be given again when the request is repeated.
        source: where the taught text came from.
        kind: how the version came to be, for ``VersionReport.kind``.
        inherited: sources of a content that was learned elsewhere.
    """

    base_version: int
    request_id: str
    request_digest: str
    snapshot: Snapshot
    base_mark: str | None = None
    unmoved: frozenset[str] = NO_UNMOVED
    result: bytes = b""
    source: Source = field(default_factory=Source)
    kind: str = "adapt"
    inherited: tuple[Source, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Committed:
    """The version is durable at the store's level. ``bytes_written`` counts sealed chunks and manifest."""

    version: int
    state_digest: str
    mark: str = ""
    bytes_written: int = 0


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """The request had been committed before: the version and the reply of that time."""

    version: int
    result: bytes


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Another writer was first: drop what is cached, load ``head``, adapt again on it."""

    head: Head


@dataclass(frozen=True, kw_only=True)
class Gone:
    """The memory was erased after the base version was read: nothing computed from it may be written."""

    head: Head


CommitOutcome = Committed | Duplicate | Conflict | Gone


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """A conversation's state after ``turn`` turns, begun when the memory's head was ``base_version``."""

    turn: int
    base_version: int
    snapshot: Snapshot


class MemoryStore(Protocol):
    """Memories and conversations of many owners. Every call may also raise ``Unavailable`` or ``Exhausted``."""

    @property
    def durability(self) -> Durability:
        """Where a commit is safe once it has been acknowledged."""
        ...

    async def open(self) -> None:
        """Connect and check. Raises CorruptMemory, FailedPrecondition or Unavailable, naming the remedy."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, then let go. Closing twice is harmless."""
        ...

    async def ping(self) -> None:
        """Return when the store answers; raise Unavailable when it does not."""
        ...

    async def head(self, owner: Owner) -> Head:
        """Where the owner's memory stands; cheap."""
        ...

    async def load(self, owner: Owner, *, fingerprint: str, version: int | None = None) -> StoredMemory:
        """Read a version (None: the current one) and check every byte of it.

        Raises:
            NotFound: no memory, or the version is not kept.
            FailedPrecondition: it belongs to another model.
            CorruptMemory: the bytes are not what was sealed.
        """
        ...

    async def describe(self, owner: Owner, version: int | None = None) -> MemoryDescription:
        """A version (None: the current one) without its tensors. Raises NotFound or CorruptMemory."""
        ...

    async def find_request(self, owner: Owner, request_id: str, request_digest: str) -> Duplicate | None:
        """The reply that a request was given before. Raises RequestIdReused for another payload."""
        ...

    async def commit(self, owner: Owner, commit: Commit) -> CommitOutcome:
        """Write a version, exactly once per request id, in one atomic step.

        Raises:
            RequestIdReused: the id was used with another payload.
            FailedPrecondition: the base version belongs to another model.
            Unavailable: the outcome is unknown, or not durable yet; repeat it with the same request id.
        """
        ...

    async def versions(self, owner: Owner) -> tuple[VersionReport, ...]:
        """Every version still on record, oldest first; empty without a memory."""
        ...

    async def rollback(
        self, owner: Owner, *, to_version: int, expected_version: int | None = None, request_id: str
    ) -> Committed | Duplicate:
        """Write a new version with the content of ``to_version``, after checking every byte of it.

        Raises:
            NotFound: the version does not exist or is no longer kept.
            VersionConflict: the memory is not at ``expected_version``, or moved meanwhile.
            RequestIdReused, CorruptMemory: as for commit and load.
        """
        ...

    async def erase(self, owner: Owner) -> ErasureReceipt:
        """Destroy the owner's data key, memory and sessions. Repeating it returns the same receipt.

        Raises:
            NotFound: there was nothing to erase.
        """
        ...

    async def list_owners(
        self, tenant: str, *, page_size: int = 100, page_token: str = ""
    ) -> tuple[tuple[MemorySummary, ...], str]:
        """A page of the tenant's memories, and the token of the next page ("" at the end)."""
        ...

    def record_read(self, owner: Owner, rpc: str, status: str) -> None:
        """Put on record that a memory was read, or would have been."""
        ...

    def record_export(self, owner: Owner, memory: StoredMemory) -> None:
        """Put on record that a version's content is handed out."""
        ...

    def owner_key(self, owner: Owner) -> str:
        """The name that ``on_erased`` calls the owner by. Only once opened."""
        ...

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """Call ``tell`` with an ``owner_key`` whenever that owner is erased, by this process or (Redis) by any; with
        None when some may have been missed: then check the heads of all that is cached. A hint, to free copies early:
        versions never repeat, so a copy that outlived its erasure cannot pass for a current one.
        """
        ...

    async def load_session(self, owner: Owner, session_id: str, *, fingerprint: str) -> StoredSession | None:
        """A conversation's state; None when there is none, or it expired.

        Raises:
            FailedPrecondition: it belongs to another model.
            CorruptMemory: the bytes are not what was sealed.
        """
        ...

    async def save_session(self, owner: Owner, session_id: str, session: StoredSession, *, ttl_seconds: float) -> None:
        """Keep the state after turn ``session.turn`` (from 1), which must follow the turn that is stored.

        Raises:
            VersionConflict: another turn was saved meanwhile; ``head`` is the turn that is stored (0: none).
            FailedPrecondition: the memory was erased after ``session.base_version`` was read.
        """
        ...

    async def delete_session(self, owner: Owner, session_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        ...
