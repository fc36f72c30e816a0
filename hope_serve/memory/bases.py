"""What a commit builds on: the codec and the manifests that are kept, remembered from one commit to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hope_serve.api import Owner
from hope_serve.errors import CorruptMemory
from hope_serve.memory.backend import HeadRow, Place
from hope_serve.memory.codec import Codec
from hope_serve.memory.manifest import Manifest, Refs
from hope_serve.memory.owners import Owners
from hope_serve.memory.reading import open_manifest
from hope_serve.memory.recent import Recent

MAX_KNOWN_OWNERS = 256


@dataclass(frozen=True, kw_only=True)
class Base:
    """The state that a commit names as its base.

    Args:
        version, mark, tomb: of the owner's record.
        codec: the owner's.
        manifests: of the kept versions; None where one no longer opens.
    """

    version: int
    mark: str
    tomb: int
    codec: Codec
    manifests: Mapping[int, Manifest | None]

    def manifest(self) -> Manifest | None:
        """The base version's manifest; None when there is no memory yet. Raises CorruptMemory."""
        if self.version <= self.tomb:
            return None
        if manifest := self.manifests.get(self.version):
            return manifest
        raise CorruptMemory(f"version {self.version} failed its seal and is not written over; roll back first")

    def followed_by(self, manifest: Manifest, *, mark: str, oldest_kept: int) -> Base:
        """The base that the commit of ``manifest`` leaves behind."""
        kept = {version: known for version, known in self.manifests.items() if version >= oldest_kept}
        kept[self.version + 1] = manifest
        return Base(version=self.version + 1, mark=mark, tomb=self.tomb, codec=self.codec, manifests=kept)


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What no kept version needs any more: chunks to drop, and the generations that live on (None: unknown)."""

    drops: tuple[Place, ...]
    live: frozenset[str] | None


class Bases:
    """Bases by owner. A stale one does no harm: the backend refuses the write, and the caller forgets it."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._known: Recent[str, Base] = Recent(MAX_KNOWN_OWNERS)

    async def at(self, owner: Owner, version: int, mark: str | None = None) -> Base | HeadRow:
        """The base at this version (and of this mark, if one is given), or the head if it is another one.

        Raises CorruptMemory.
        """
        binding = self._owners.binding(owner)
        known = self._known.get(binding.index)
        if known and known.version == version and mark in (None, known.mark):
            return known
        record = await self._owners.record(binding)
        if record.head.version != version or mark not in (None, record.head.mark):
            return record.head
        if record.data_key:
            codec: Codec | None = await self._owners.codec(binding, record.data_key)
        else:
            codec = await self._owners.claim(owner, tomb=record.head.tomb)
        if codec is None:
            return await self._owners.head(binding)
        manifests = {number: _open_or_none(codec, number, row.manifest) for number, row in record.versions.items()}
        return Base(version=version, mark=record.head.mark, tomb=record.head.tomb, codec=codec, manifests=manifests)

    def remember(self, base: Base) -> None:
        """Keep a base for the owner's next commit."""
        self._known.put(base.codec.binding.index, base)

    def forget(self, index: str) -> None:
        """Read the owner's record again next time."""
        self._known.drop(index)


def plan_pruning(base: Base, manifest: Manifest, *, oldest_kept: int) -> Pruning:
    """What may go once ``manifest`` is committed on the base.

    A chunk goes when a version that leaves the kept ones held it and no version that stays does. While a staying
    manifest cannot be read nothing goes; its generations go later, when it has left.
    """
    leaving = [known for version, known in base.manifests.items() if version < oldest_kept]
    staying = [known for version, known in base.manifests.items() if version >= oldest_kept]
    if None in staying:
        return Pruning(drops=(), live=None)
    needed: Refs = manifest.refs.union(*(known.refs for known in staying if known))
    live = frozenset(generation for generation, _ in needed)
    gone: Refs = frozenset[Place]().union(*(known.refs for known in leaving if known)) - needed
    return Pruning(drops=tuple(sorted(place for place in gone if place[0] in live)), live=live)


def _open_or_none(codec: Codec, version: int, sealed: bytes) -> Manifest | None:
    try:
        return open_manifest(codec, version, sealed)
    except CorruptMemory:
        return None
