"""A memory's whole history, version by version, out of one store and into another."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from hope_serve.api import Owner
from hope_serve.errors import NotFound, VersionConflict
from hope_serve.memory.backend import Backend, HeadRow
from hope_serve.memory.codec import Codec
from hope_serve.memory.manifest import STORE_FORMAT, Manifest
from hope_serve.memory.owners import Owners, offload
from hope_serve.memory.provenance import About, open_about
from hope_serve.memory.reading import Reader
from hope_serve.memory.snapshot import Snapshot
from hope_serve.memory.store import Committed, Duplicate
from hope_serve.memory.writing import Draft, Writer


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One version: its note, its request's row, and its content if that is still kept."""

    version: int
    about: About
    digest: str
    result: bytes
    snapshot: Snapshot | None


class History:
    """Reads and writes chapters of a sealed store."""

    def __init__(self, backend: Backend, owners: Owners, reader: Reader, writer: Writer) -> None:
        self._backend = backend
        self._owners = owners
        self._reader = reader
        self._writer = writer

    async def read(self, owner: Owner, *, after: int) -> AsyncIterator[Chapter]:
        """Every version on record beyond ``after``, oldest first. Raises NotFound or CorruptMemory."""
        opened = await self._reader.open(owner, None)
        kept = {report.version for report in await self._reader.versions(owner) if report.restorable}
        for version, sealed in await self._backend.abouts(opened.codec.binding.index):
            if version > after:
                about = open_about(opened.codec, version, sealed)
                yield await self._chapter(owner, opened.codec, version, about, version in kept)

    async def write(self, owner: Owner, chapter: Chapter) -> None:
        """Write a chapter as the next version; the first one says where the versions begin.

        Raises:
            VersionConflict: somebody else writes to this memory.
        """
        head = await self._owners.head(self._owners.binding(owner))
        if head.version == 0 and chapter.version > 1:
            await self._begin_at(owner, chapter.version)
        base = await self._writer.base(owner, chapter.version - 1)
        if isinstance(base, HeadRow):
            raise VersionConflict(
                f"the target is at version {base.version}, and version {chapter.version} cannot follow",
                head=base.version,
            )
        draft = Draft(
            base=base,
            about=chapter.about,
            digest=chapter.digest,
            result=chapter.result,
            manifest=_nothing(),
            is_kept=False,
        )
        if snapshot := chapter.snapshot:
            generation = f"{chapter.version}-{os.urandom(8).hex()}"
            written = await offload(
                snapshot.num_bytes,
                lambda: base.codec.write(snapshot, generation, base=base.manifests.get(base.version)),
            )
            draft = replace(
                draft, manifest=written.manifest, generation=generation, chunks=written.chunks, is_kept=True
            )
        outcome = await self._writer.write(draft)
        if not isinstance(outcome, Committed | Duplicate):
            raise VersionConflict("somebody writes to the target meanwhile", head=outcome.head.version)

    async def _chapter(self, owner: Owner, codec: Codec, version: int, about: About, is_kept: bool) -> Chapter:
        snapshot = await self._reader.snapshot(await self._reader.open(owner, version)) if is_kept else None
        request = self._owners.index.request(codec.binding, about.request_id)
        row = await self._backend.find(codec.binding.index, request)
        if row is None:
            raise NotFound(f"the request of version {version} is not in the journal")
        place = codec.binding.result(request, row.digest, row.version)
        result = bytes(codec.open(row.result, place, "the reply kept for a repeated request"))
        return Chapter(version=version, about=about, digest=row.digest, result=result, snapshot=snapshot)

    async def _begin_at(self, owner: Owner, version: int) -> None:
        """Leave a tombstone before the first version: versions go on from it."""
        binding = self._owners.binding(owner)
        head = HeadRow(version=version - 1, tomb=version - 1)
        sealed = replace(head, seal=self._owners.index.seal_head(binding, head))
        await self._backend.erase(binding.index, 0, sealed)


def _nothing() -> Manifest:
    return Manifest(format=STORE_FORMAT, fingerprint="", schema=0, counters={}, generations=(), tensors={})
