"""Conversations: sealed like memories, one writer at a time, no journal, gone after their time."""

from __future__ import annotations

import os
from collections.abc import Callable

from hope_serve.api import Owner
from hope_serve.errors import FailedPrecondition, VersionConflict
from hope_serve.memory.backend import Backend, SessionRow
from hope_serve.memory.manifest import decode_manifest, encode_manifest
from hope_serve.memory.owners import Owners, offload
from hope_serve.memory.reading import check_fingerprint
from hope_serve.memory.store import StoredSession


class Sessions:
    """The conversations of a sealed store.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, backend: Backend, owners: Owners, *, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._owners = owners
        self._clock = clock

    async def load(self, owner: Owner, session_id: str, *, fingerprint: str) -> StoredSession | None:
        """See ``MemoryStore.load_session``."""
        binding = self._owners.binding(owner)
        session = self._owners.index.session(binding, session_id)
        row = await self._backend.read_session(binding.index, session, self._clock())
        if row is None:
            return None
        record = await self._owners.record(binding)
        if not record.data_key:  # erased between the two reads
            return None
        codec = await self._owners.codec(binding, record.data_key)
        place = binding.session(session, row.turn, row.base_version)
        manifest = decode_manifest(codec.open(row.manifest, place, "a session's manifest"))
        check_fingerprint(manifest, fingerprint)
        chunks = {(row.generation, number): chunk for number, chunk in enumerate(row.chunks)}
        snapshot = await offload(manifest.num_bytes, lambda: codec.read(manifest, chunks))
        return StoredSession(turn=row.turn, base_version=row.base_version, snapshot=snapshot)

    async def save(self, owner: Owner, session_id: str, session: StoredSession, *, ttl_seconds: float) -> None:
        """See ``MemoryStore.save_session``."""
        binding = self._owners.binding(owner)
        codec = await self._owners.claim(owner, tomb=session.base_version)
        if codec is None:
            raise _erased()
        name = self._owners.index.session(binding, session_id)
        generation = f"session-{name}-{session.turn}-{os.urandom(8).hex()}"
        snapshot = session.snapshot
        written = await offload(snapshot.num_bytes, lambda: codec.write(snapshot, generation))
        place = binding.session(name, session.turn, session.base_version)
        row = SessionRow(
            turn=session.turn,
            base_version=session.base_version,
            generation=generation,
            manifest=codec.sealer.seal(encode_manifest(written.manifest), place),
            chunks=written.chunks,
        )
        stored = await self._backend.write_session(binding.index, name, row, now=self._clock(), ttl=ttl_seconds)
        if stored == -1:
            raise _erased()
        if stored is not None:
            raise VersionConflict(
                f"turn {session.turn} does not follow turn {stored} that is stored; another turn ran meanwhile: "
                "send this one again after it",
                head=stored,
                reason="SESSION_CONFLICT",
            )

    async def delete(self, owner: Owner, session_id: str) -> bool:
        """See ``MemoryStore.delete_session``."""
        binding = self._owners.binding(owner)
        return await self._backend.delete_session(binding.index, self._owners.index.session(binding, session_id))


def _erased() -> FailedPrecondition:
    return FailedPrecondition("the user's memory was erased during this turn; its state is not kept", reason="ERASED")
