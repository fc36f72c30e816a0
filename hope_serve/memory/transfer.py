"""Memories on the move: to another user, into a file, out of a file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable

from hope_serve.api import Owner, Source
from hope_serve.errors import FailedPrecondition, InvalidRequest, VersionConflict
from hope_serve.memory.portable import Portable, read_portable, write_portable
from hope_serve.memory.snapshot import Snapshot
from hope_serve.memory.store import Commit, Committed, Duplicate, Gone, MemoryStore

MAX_IMPORT_BYTES = 2**30


async def fork_memory(
    store: MemoryStore, source: Owner, target: Owner, *, fingerprint: str, request_id: str, version: int | None = None
) -> Committed | Duplicate:
    """Give a user who has no memory a copy of another's, within one tenant; each then writes only what it changes.

    The bytes are sealed anew: they are the target's own, and outlive the source's erasure.

    Args:
        version: of the source; None for the current one.

    Raises:
        InvalidRequest: the users belong to different tenants, or are the same.
        NotFound: the source has no such memory.
        VersionConflict: the target has a memory already.
        RequestIdReused, FailedPrecondition, CorruptMemory: as ``load`` and ``commit``.
    """
    if source.tenant != target.tenant or source == target:
        raise InvalidRequest("target", "a memory can be forked to another user of the same tenant only")
    digest = hashlib.sha256(f"fork\0{store.owner_key(source)}\0{version}".encode()).hexdigest()
    if earlier := await store.find_request(target, request_id, digest):
        return earlier
    stored = await store.load(source, fingerprint=fingerprint, version=version)
    sources = (await store.describe(source, stored.version)).sources
    return await _commit_whole(store, target, stored.snapshot, sources, "fork", request_id, digest)


async def export_memory(
    store: MemoryStore, owner: Owner, *, fingerprint: str, version: int | None = None, passphrase: str | None = None
) -> AsyncIterator[bytes]:
    """A version (None: the current one) as a file of the format in ``portable``.

    Args:
        passphrase: opens the file; None leaves it readable, and only shows damage.

    Raises:
        NotFound, FailedPrecondition, CorruptMemory: as ``load``.
    """
    stored = await store.load(owner, fingerprint=fingerprint, version=version)
    sources = (await store.describe(owner, stored.version)).sources
    store.record_export(owner, stored)
    memory = Portable(snapshot=stored.snapshot, sources=sources, version=stored.version, exported_at=time.time())
    async for piece in write_portable(memory, passphrase):
        yield piece


async def import_memory(
    store: MemoryStore,
    owner: Owner,
    stream: AsyncIterable[bytes],
    *,
    fingerprint: str,
    request_id: str,
    passphrase: str | None = None,
    max_bytes: int = MAX_IMPORT_BYTES,
    check: Callable[[Snapshot], None] | None = None,
) -> Committed | Duplicate:
    """Give a user who has no memory the one in a file.

    Args:
        max_bytes: of the file's tensors.
        check: raises for a content that the caller could not read back.

    Raises:
        VersionConflict: the user has a memory already.
        RequestIdReused: as ``commit``.
        FailedPrecondition, PermissionDenied, CorruptMemory: as ``read_portable``.
    """
    memory = await read_portable(stream, passphrase, fingerprint=fingerprint, max_bytes=max_bytes)
    if check:
        check(memory.snapshot)
    origin = f"import\0{memory.version}\0{memory.exported_at}\0{memory.snapshot.fingerprint}"
    digest = hashlib.sha256(origin.encode()).hexdigest()
    if earlier := await store.find_request(owner, request_id, digest):
        return earlier
    return await _commit_whole(store, owner, memory.snapshot, memory.sources, "import", request_id, digest)


async def _commit_whole(
    store: MemoryStore,
    owner: Owner,
    snapshot: Snapshot,
    sources: tuple[Source, ...],
    kind: str,
    request_id: str,
    digest: str,
) -> Committed | Duplicate:
    head = await store.head(owner)
    if head.exists:
        raise _taken(head.version)
    outcome = await store.commit(
        owner,
        Commit(
            base_version=head.version,
            request_id=request_id,
            request_digest=digest,
            snapshot=snapshot,
            kind=kind,
            inherited=sources,
        ),
    )
    if isinstance(outcome, Committed | Duplicate):
        return outcome
    if isinstance(outcome, Gone):
        raise FailedPrecondition("the target was erased meanwhile; try again", reason="ERASED")
    raise _taken(outcome.head.version)


def _taken(version: int) -> VersionConflict:
    return VersionConflict(
        f"the target has a memory at version {version}; erase it first, or choose another user",
        head=version,
        reason="MEMORY_EXISTS",
    )
