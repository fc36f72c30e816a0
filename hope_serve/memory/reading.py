"""Reads a memory back: finds the version, opens its manifest, checks every chunk."""

from __future__ import annotations

from dataclasses import dataclass

from hope_serve.api import Owner, VersionReport
from hope_serve.errors import CorruptMemory, FailedPrecondition, NotFound
from hope_serve.memory.backend import Backend, HeadRow, Record, VersionRow
from hope_serve.memory.codec import Codec
from hope_serve.memory.manifest import Manifest, decode_manifest
from hope_serve.memory.owners import Owners, offload
from hope_serve.memory.provenance import About, open_about, sources_of
from hope_serve.memory.snapshot import Snapshot
from hope_serve.memory.store import Head, MemoryDescription, StoredMemory


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A version whose manifest and note have been checked, and what opens its chunks."""

    version: int
    head: HeadRow
    codec: Codec
    manifest: Manifest
    about: About


class Reader:
    """The read side of a sealed store."""

    def __init__(self, backend: Backend, owners: Owners) -> None:
        self._backend = backend
        self._owners = owners

    async def head(self, owner: Owner) -> Head:
        """Where the owner's memory stands."""
        return head_of(await self._owners.head(self._owners.binding(owner)))

    async def load(self, owner: Owner, *, fingerprint: str, version: int | None = None) -> StoredMemory:
        """See ``MemoryStore.load``."""
        while True:
            opened = await self.open(owner, version)
            check_fingerprint(opened.manifest, fingerprint)
            try:
                snapshot = await self.snapshot(opened)
            except CorruptMemory:
                if await self._is_kept(owner, opened.version):
                    raise
                continue  # the version was dropped while its chunks were read
            about = opened.about.report(opened.version, restorable=True)
            return StoredMemory(
                version=opened.version,
                mark=opened.head.mark if opened.version == opened.head.version else "",
                snapshot=snapshot,
                state_digest=opened.about.state_digest,
                about=about,
            )

    async def describe(self, owner: Owner, version: int | None = None) -> MemoryDescription:
        """See ``MemoryStore.describe``."""
        opened = await self.open(owner, version)
        rows = await self._backend.abouts(opened.codec.binding.index)
        abouts = {number: open_about(opened.codec, number, sealed) for number, sealed in rows}
        return MemoryDescription(
            version=opened.version,
            fingerprint=opened.manifest.fingerprint,
            schema=opened.manifest.schema,
            counters=opened.manifest.counters,
            num_bytes=opened.manifest.num_bytes,
            state_digest=opened.about.state_digest,
            sources=sources_of(abouts, opened.version),
            about=opened.about.report(opened.version, restorable=True),
        )

    async def versions(self, owner: Owner) -> tuple[VersionReport, ...]:
        """See ``MemoryStore.versions``."""
        binding = self._owners.binding(owner)
        record = await self._owners.record(binding)
        if not exists(record.head):
            return ()
        codec = await self._owners.codec(binding, record.data_key)
        rows = await self._backend.abouts(binding.index)
        return tuple(
            open_about(codec, version, sealed).report(version, restorable=version in record.versions)
            for version, sealed in rows
        )

    async def open(self, owner: Owner, version: int | None) -> Opened:
        """The manifest and note of a version. Raises NotFound or CorruptMemory."""
        binding = self._owners.binding(owner)
        record = await self._owners.record(binding)
        if not exists(record.head):
            raise NotFound("this user has no memory yet")
        chosen = record.head.version if version is None else version
        row = _kept(record, chosen)
        codec = await self._owners.codec(binding, record.data_key)
        manifest = open_manifest(codec, chosen, row.manifest)
        about = open_about(codec, chosen, row.about)
        return Opened(version=chosen, head=record.head, codec=codec, manifest=manifest, about=about)

    async def snapshot(self, opened: Opened) -> Snapshot:
        """The content of an opened version, every byte checked. Raises CorruptMemory."""
        places = sorted(opened.manifest.refs)
        chunks = await self._backend.chunks(opened.codec.binding.index, places)
        return await offload(opened.manifest.num_bytes, lambda: opened.codec.read(opened.manifest, chunks))

    async def _is_kept(self, owner: Owner, version: int) -> bool:
        record = await self._owners.record(self._owners.binding(owner))
        return version in record.versions


def exists(head: HeadRow) -> bool:
    """Whether there is a memory now."""
    return head.version > head.tomb


def head_of(row: HeadRow) -> Head:
    """The head as callers know it."""
    there = exists(row)
    size = row.num_bytes if there else 0
    return Head(version=row.version, mark=row.mark, exists=there, num_bytes=size, updated_at=row.updated_at)


def open_manifest(codec: Codec, version: int, sealed: bytes) -> Manifest:
    """A version's manifest, checked. Raises CorruptMemory."""
    place = codec.binding.manifest(version, version - 1)
    return decode_manifest(codec.open(sealed, place, f"the manifest of version {version}"))


def check_fingerprint(manifest: Manifest, fingerprint: str) -> None:
    """Refuse a memory of another model."""
    if manifest.fingerprint != fingerprint:
        raise FailedPrecondition(
            f"the memory belongs to the model {manifest.fingerprint}, not to {fingerprint}; serve that model, or erase "
            "the memory to begin anew",
            reason="OTHER_MODEL",
        )


def _kept(record: Record, version: int) -> VersionRow:
    if version in record.versions:
        return record.versions[version]
    if version == record.head.version:
        raise CorruptMemory(f"the manifest of version {version} is missing; roll back to an earlier version")
    kept = ", ".join(str(number) for number in sorted(record.versions))
    raise NotFound(
        f"version {version} is not kept: the memory is at {record.head.version}, and can be read at {kept or 'none'}",
        reason="VERSION_NOT_FOUND",
    )
