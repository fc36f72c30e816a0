"""The memory store: sealing, versions and exactly-once over any backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hope_serve.api import Durability, ErasureReceipt, MemorySummary, Owner, VersionReport
from hope_serve.memory.audit import Action, AuditEvent
from hope_serve.memory.backend import Backend
from hope_serve.memory.clock import StoreClock
from hope_serve.memory.erasing import Eraser
from hope_serve.memory.expiry import Expiry
from hope_serve.memory.history import History
from hope_serve.memory.keys import KeyRing
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.owners import Owners
from hope_serve.memory.promise import Promise
from hope_serve.memory.reading import Reader, exists
from hope_serve.memory.sessions import Sessions
from hope_serve.memory.store import (
    Commit,
    CommitOutcome,
    Committed,
    Duplicate,
    Head,
    MemoryDescription,
    StoredMemory,
    StoredSession,
)
from hope_serve.memory.upkeep import Upkeep
from hope_serve.memory.writing import Writer


class SealedStore:
    """A ``MemoryStore``; the calls are documented there.

    Args:
        backend: where the sealed bytes rest.
        keys: what wraps the owners' data keys.
        options: how the store is to behave.
    """

    def __init__(self, backend: Backend, keys: KeyRing, options: StoreOptions) -> None:
        self._backend = backend
        self._clock = StoreClock(backend)
        self._options = options = replace(options, clock=options.clock or self._clock)
        self._owners = Owners(backend, keys)
        self.promise = Promise(backend, self._owners)
        self._reader = Reader(backend, self._owners)
        self._writer = Writer(backend, self._owners, self._reader, options, self.promise)
        self._eraser = Eraser(backend, self._owners, options, self.promise)
        self.history = History(backend, self._owners, self._reader, self._writer)
        expiry = Expiry(backend, self._owners, self._eraser, options)
        self.upkeep = Upkeep(backend, self._owners, expiry, options)
        self._sessions = Sessions(backend, self._owners, clock=options.now)

    @property
    def durability(self) -> Durability:
        """Where a commit is safe once it has been acknowledged."""
        return self._backend.durability

    async def open(self) -> None:
        """Connect and check."""
        await self._backend.open()
        try:
            await self._owners.open()
            await self._set_clock()
        except BaseException:
            await self._backend.close()
            raise

    async def close(self) -> None:
        """Wait for what is under way, then let go."""
        await self._backend.close()

    async def ping(self) -> None:
        """Return when the store answers."""
        await self._backend.ping()

    async def look_again(self) -> bool:
        """Whether the store keeps what it promised when it was opened; also sets our clock by its own.

        While it does not, commits, rollbacks and erasures are not acknowledged. Raises Unavailable.
        """
        await self.promise.look()
        await self._set_clock()
        return self.promise.kept

    async def _set_clock(self) -> None:
        if self._options.clock is self._clock:
            await self._clock.set_right()

    async def head(self, owner: Owner) -> Head:
        """Where the owner's memory stands."""
        return await self._reader.head(owner)

    async def load(self, owner: Owner, *, fingerprint: str, version: int | None = None) -> StoredMemory:
        """Read a version and check every byte of it."""
        return await self._reader.load(owner, fingerprint=fingerprint, version=version)

    async def describe(self, owner: Owner, version: int | None = None) -> MemoryDescription:
        """A version without its tensors."""
        return await self._reader.describe(owner, version)

    async def versions(self, owner: Owner) -> tuple[VersionReport, ...]:
        """Every version still on record, oldest first."""
        return await self._reader.versions(owner)

    async def find_request(self, owner: Owner, request_id: str, request_digest: str) -> Duplicate | None:
        """The reply that a request was given before."""
        return await self._writer.find_request(owner, request_id, request_digest)

    async def commit(self, owner: Owner, commit: Commit) -> CommitOutcome:
        """Write a version, exactly once per request id."""
        return await self._writer.commit(owner, commit)

    async def rollback(
        self, owner: Owner, *, to_version: int, expected_version: int | None = None, request_id: str
    ) -> Committed | Duplicate:
        """Write a new version with the content of an earlier one."""
        return await self._writer.rollback(
            owner, to_version=to_version, expected_version=expected_version, request_id=request_id
        )

    async def erase(self, owner: Owner) -> ErasureReceipt:
        """Destroy the owner's data key, memory and sessions."""
        return await self._eraser.erase(owner)

    async def list_owners(
        self, tenant: str, *, page_size: int = 100, page_token: str = ""
    ) -> tuple[tuple[MemorySummary, ...], str]:
        """A page of the tenant's memories, and the token of the next page."""
        index = self._owners.index
        rows = await self._backend.owners(index.tenant(tenant), page_token, page_size)
        summaries = tuple(
            MemorySummary(
                user=index.open_name(row.name, row.owner).user,
                version=row.head.version,
                num_bytes=row.head.num_bytes,
                updated_at=row.head.updated_at,
            )
            for row in rows
            if exists(row.head)
        )
        return summaries, rows[-1].cursor if len(rows) == page_size else ""

    def record_read(self, owner: Owner, rpc: str, status: str) -> None:
        """Put on record that a memory was read, or would have been."""
        self._options.audit.record(
            AuditEvent(
                time=self._options.now(),
                action=Action.READ,
                owner=self.owner_key(owner),
                tenant=self._owners.index.tenant(owner.tenant),
                kind=rpc,
                status=status,
            )
        )

    def record_export(self, owner: Owner, memory: StoredMemory) -> None:
        """Put on record that a version's content is handed out."""
        self._options.audit.record(
            AuditEvent(
                time=self._options.now(),
                action=Action.EXPORT,
                owner=self.owner_key(owner),
                tenant=self._owners.index.tenant(owner.tenant),
                version=memory.version,
                num_bytes=memory.snapshot.num_bytes,
                digest=memory.state_digest,
            )
        )

    def owner_key(self, owner: Owner) -> str:
        """The name that ``on_erased`` calls the owner by."""
        return self._owners.binding(owner).index

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """Call ``tell`` with an ``owner_key`` whenever that owner is erased."""
        self._backend.on_erased(tell)

    async def load_session(self, owner: Owner, session_id: str, *, fingerprint: str) -> StoredSession | None:
        """A conversation's state."""
        return await self._sessions.load(owner, session_id, fingerprint=fingerprint)

    async def save_session(self, owner: Owner, session_id: str, session: StoredSession, *, ttl_seconds: float) -> None:
        """Keep a conversation's state after a turn."""
        await self._sessions.save(owner, session_id, session, ttl_seconds=ttl_seconds)

    async def delete_session(self, owner: Owner, session_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        return await self._sessions.delete(owner, session_id)
