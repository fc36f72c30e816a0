"""Memories that are doubled, sent away and taken in."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from hope_serve.api import Owner
from hope_serve.memory.store import Committed, Duplicate
from hope_serve.memory.transfer import export_memory, fork_memory, import_memory
from hope_serve.metrics import Metrics
from hope_serve.service.warm import Memories

IMPORT_MARGIN = 2
"""A file may hold this many times a memory's bytes: the tensors' own limit is their shapes, checked afterwards."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Copies of memories of one model."""

    memories: Memories
    fingerprint: str
    metrics: Metrics

    async def fork(self, source: Owner, target: Owner, *, version: int | None, request_id: str) -> int:
        """Give ``target``, who has no memory, a copy of ``source``'s; the target's version.

        Raises:
            InvalidRequest, NotFound, VersionConflict, RequestIdReused: see ``fork_memory``.
        """
        store = self.memories.store
        return self._version(
            await fork_memory(
                store, source, target, fingerprint=self.fingerprint, request_id=request_id, version=version
            )
        )

    def export(self, owner: Owner, *, version: int | None, passphrase: str | None) -> AsyncIterator[bytes]:
        """A version as a sealed file, in pieces; see ``export_memory``."""
        return export_memory(
            self.memories.store, owner, fingerprint=self.fingerprint, version=version, passphrase=passphrase
        )

    async def take_in(
        self, owner: Owner, stream: AsyncIterable[bytes], *, request_id: str, passphrase: str | None
    ) -> int:
        """Give ``owner``, who has no memory, the one in a file; the owner's version.

        Raises:
            VersionConflict, RequestIdReused, PermissionDenied, CorruptMemory: see ``import_memory``.
            FailedPrecondition: a memory of another model, or a content that this model cannot read.
        """
        return self._version(
            await import_memory(
                self.memories.store,
                owner,
                stream,
                fingerprint=self.fingerprint,
                request_id=request_id,
                passphrase=passphrase,
                max_bytes=IMPORT_MARGIN * self.memories.codec.memory_bytes,
                check=self.memories.codec.check,
            )
        )

    def _version(self, outcome: Committed | Duplicate) -> int:
        if isinstance(outcome, Duplicate):
            self.metrics.idempotent_replays_total().inc()
        return outcome.version
