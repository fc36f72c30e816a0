"""How versions came to be: the sealed note kept with each, and the chain of sources behind a content."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hope_serve.api import Source, VersionReport
from hope_serve.memory.codec import Codec


class About(msgspec.Struct, frozen=True, kw_only=True):
    """A version's note.

    Args:
        base_version: the version before it.
        content_of: the version whose content it took over (a rollback), or 0.
        created_at: Unix seconds.
        kind: adapt, rollback, fork or import.
        request_id: as the client gave it.
        source: where the taught text came from.
        num_bytes: bytes of its tensors.
        state_digest: digest of its content.
        inherited: sources that a forked or imported content brought along.
    """

    base_version: int
    content_of: int = 0
    created_at: float
    kind: str
    request_id: str
    source: Source
    num_bytes: int
    state_digest: str
    inherited: tuple[Source, ...] = ()

    def report(self, version: int, *, restorable: bool) -> VersionReport:
        """What a client is told."""
        return VersionReport(
            version=version,
            base_version=self.base_version,
            created_at=self.created_at,
            kind=self.kind,
            request_id=self.request_id,
            source=self.source,
            restorable=restorable,
        )


def seal_about(codec: Codec, version: int, about: About) -> bytes:
    """The note as it is stored."""
    return codec.sealer.seal(msgspec.msgpack.encode(about), codec.binding.about(version))


def open_about(codec: Codec, version: int, sealed: bytes) -> About:
    """The note, checked. Raises CorruptMemory."""
    plain = codec.open(sealed, codec.binding.about(version), f"the note of version {version}")
    return msgspec.msgpack.decode(plain, type=About)


def sources_of(abouts: Mapping[int, About], version: int) -> tuple[Source, ...]:
    """What the version's content learned from, oldest first, as far back as versions are on record."""
    found: list[Source] = []
    while about := abouts.get(version):
        if about.content_of:
            version = about.content_of
            continue
        if about.source != Source():
            found.append(about.source)
        found.extend(reversed(about.inherited))
        version = about.base_version
    return tuple(reversed(found))
