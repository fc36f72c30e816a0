"""Writes a memory: seals what moved, plans what may go, and lets the backend move the version once."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass

import msgspec

from hope_serve.api import Owner
from hope_serve.errors import HopeError, NotFound, RequestIdReused, VersionConflict
from hope_serve.memory.audit import Action, AuditEvent
from hope_serve.memory.backend import Backend, HeadRow, JournalRow, Outcome, Verdict, Write
from hope_serve.memory.bases import Base, Bases, plan_pruning
from hope_serve.memory.codec import Codec
from hope_serve.memory.manifest import Manifest, encode_manifest
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.owners import Owners, offload
from hope_serve.memory.promise import Promise
from hope_serve.memory.provenance import About, seal_about
from hope_serve.memory.quotas import QuotaKeeper
from hope_serve.memory.reading import Opened, Reader, check_fingerprint, head_of
from hope_serve.memory.store import Commit, CommitOutcome, Committed, Conflict, Duplicate, Gone

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A version about to be written on a base.

    Args:
        about: its note.
        digest: ``hashed`` digest of the request's payload.
        result: the reply to keep for the request.
        manifest, generation, chunks: its content.
        is_kept: False for a version that only goes on record: its content is not kept.
    """

    base: Base
    about: About
    digest: str
    result: bytes
    manifest: Manifest
    generation: str = ""
    chunks: tuple[bytes, ...] = ()
    is_kept: bool = True

    @property
    def version(self) -> int:
        """The version to be written."""
        return self.base.version + 1


class Writer:
    """The write side of a sealed store."""

    def __init__(
        self, backend: Backend, owners: Owners, reader: Reader, options: StoreOptions, promise: Promise
    ) -> None:
        self._backend = backend
        self._owners = owners
        self._reader = reader
        self._bases = Bases(owners)
        self._promise = promise
        self._quotas = QuotaKeeper(backend, options.quotas)
        self._options = options

    async def find_request(self, owner: Owner, request_id: str, request_digest: str) -> Duplicate | None:
        """See ``MemoryStore.find_request``."""
        binding = self._owners.binding(owner)
        request = self._owners.index.request(binding, request_id)
        row = await self._backend.find(binding.index, request)
        if row is None or row.version == 0:
            return None
        self._promise.require()
        record = await self._owners.record(binding)
        duplicate = _duplicate(await self._owners.codec(binding, record.data_key), request, row)
        if row.digest != hashed(request_digest):
            raise _reused(request_id)
        return duplicate

    async def commit(self, owner: Owner, commit: Commit) -> CommitOutcome:
        """See ``MemoryStore.commit``."""
        base = await self._bases.at(owner, commit.base_version, commit.base_mark)
        if isinstance(base, HeadRow):
            earlier = await self.find_request(owner, commit.request_id, commit.request_digest)
            return earlier or _passed_over(base, commit.base_version)
        before = base.manifest()
        if before:
            check_fingerprint(before, commit.snapshot.fingerprint)
        generation = f"{commit.base_version + 1}-{os.urandom(8).hex()}"
        written = await offload(
            commit.snapshot.num_bytes,
            lambda: base.codec.write(commit.snapshot, generation, base=before, unmoved=commit.unmoved),
        )
        about = About(
            base_version=commit.base_version,
            created_at=self._options.now(),
            kind=commit.kind,
            request_id=commit.request_id,
            source=commit.source,
            num_bytes=written.manifest.num_bytes,
            state_digest=written.manifest.state_digest(),
            inherited=commit.inherited,
        )
        before_bytes = before.num_bytes if before else None
        await self._quotas.check(self._owners.index, owner.tenant, before=before_bytes, after=about.num_bytes)
        return await self.write(
            Draft(
                base=base,
                about=about,
                digest=hashed(commit.request_digest),
                result=commit.result,
                manifest=written.manifest,
                generation=generation,
                chunks=written.chunks,
            )
        )

    async def rollback(
        self, owner: Owner, *, to_version: int, expected_version: int | None, request_id: str
    ) -> Committed | Duplicate:
        """See ``MemoryStore.rollback``."""
        digest = hashlib.sha256(b"rollback to %d" % to_version).hexdigest()
        if earlier := await self.find_request(owner, request_id, digest):
            return earlier
        target = await self._reader.open(owner, to_version)
        if expected_version is not None and expected_version != target.head.version:
            raise _moved(target.head.version, expected_version)
        await self._reader.snapshot(target)  # a content that does not open must not become the current one
        outcome = await self._write_again(owner, target, request_id, digest)
        if isinstance(outcome, Conflict):
            raise _moved(outcome.head.version, target.head.version)
        if isinstance(outcome, Gone):
            raise NotFound("the memory was erased meanwhile")
        return outcome

    async def _write_again(self, owner: Owner, target: Opened, request_id: str, digest: str) -> CommitOutcome:
        base = await self._bases.at(owner, target.head.version, target.head.mark)
        if isinstance(base, HeadRow):
            return _passed_over(base, target.head.version)
        about = msgspec.structs.replace(
            target.about,
            base_version=base.version,
            content_of=target.version,
            created_at=self._options.now(),
            kind="rollback",
            request_id=request_id,
        )
        return await self.write(
            Draft(base=base, about=about, digest=hashed(digest), result=b"", manifest=target.manifest)
        )

    async def base(self, owner: Owner, version: int) -> Base | HeadRow:
        """What a draft of the version after this one builds on; the head when it is at another."""
        return await self._bases.at(owner, version)

    async def write(self, draft: Draft) -> CommitOutcome:
        """Seal a draft's rows and let the backend write it, once.

        Raises:
            Unavailable: also when it was written, and the store meanwhile ceased to keep its promise.
        """
        self._promise.require()
        base, codec = draft.base, draft.base.codec
        version = draft.version
        request = self._owners.index.request(codec.binding, draft.about.request_id)
        oldest_kept = version - self._options.keep_versions + 1 if draft.is_kept else version + 1
        pruning = plan_pruning(base, draft.manifest, oldest_kept=oldest_kept)
        seal, place = codec.sealer.seal, codec.binding
        about = draft.about
        mark = os.urandom(8).hex()
        head = HeadRow(
            version=version, mark=mark, tomb=base.tomb, num_bytes=about.num_bytes, updated_at=about.created_at
        )
        write = Write(
            base_version=base.version,
            base_mark=base.mark,
            mark=mark,
            request=request,
            digest=draft.digest,
            result=seal(draft.result, place.result(request, draft.digest, version)),
            about=seal_about(codec, version, about),
            manifest=seal(encode_manifest(draft.manifest), place.manifest(version, base.version)),
            head_seal=self._owners.index.seal_head(place, head),
            generation=draft.generation,
            chunks=draft.chunks,
            drops=pruning.drops,
            live=pruning.live,
            oldest_kept=oldest_kept,
            num_bytes=head.num_bytes,
            now=head.updated_at,
        )
        outcome = await self._backend.write(place.index, write)
        if outcome.verdict is Verdict.OK:
            self._bases.remember(base.followed_by(draft.manifest, mark=mark, oldest_kept=oldest_kept))
            await self._put_on_record(draft, request)
            self._promise.require()
            size = len(write.manifest) + sum(len(chunk) for chunk in write.chunks)
            return Committed(version=version, mark=mark, state_digest=about.state_digest, bytes_written=size)
        self._bases.forget(place.index)
        self._promise.require()
        return _settle(draft, request, outcome)

    async def _put_on_record(self, draft: Draft, request: str) -> None:
        """The commit stands: what follows it must not make it look as if it had failed."""
        about, base, binding = draft.about, draft.base, draft.base.codec.binding
        before = base.manifests.get(base.version) if base.version > base.tomb else None
        index = self._owners.index
        try:
            await self._quotas.count(
                index,
                binding.tenant,
                binding.index,
                before=before.num_bytes if before else None,
                after=about.num_bytes,
            )
        except HopeError as error:
            _log.warning("usage of a tenant is not counted until the next change or recount: %s", error)
        self._options.audit.record(
            AuditEvent(
                time=about.created_at,
                action=Action.ROLLBACK if about.content_of else Action.COMMIT,
                owner=binding.index,
                tenant=index.tenant(binding.tenant),
                request=request,
                version=draft.version,
                kind=about.kind,
                num_bytes=about.num_bytes,
                digest=about.state_digest,
            )
        )


def _settle(draft: Draft, request: str, outcome: Outcome) -> CommitOutcome:
    """What a write that was not carried out means for its caller."""
    if outcome.journal:
        duplicate = _duplicate(draft.base.codec, request, outcome.journal)
        if outcome.verdict is Verdict.REUSED:
            raise _reused(draft.about.request_id)
        return duplicate
    if outcome.verdict is Verdict.GONE:
        return Gone(head=head_of(outcome.head))
    return _passed_over(outcome.head, draft.base.version)


def _passed_over(head: HeadRow, base_version: int) -> Conflict | Gone:
    """Another writer was first, the memory was erased, or the store went back."""
    if base_version < head.tomb:
        return Gone(head=head_of(head))
    if head.version <= base_version:
        _log.error(
            "version_regression: the store is at version %d, and was at another version %d before",
            head.version,
            base_version,
        )
    return Conflict(head=head_of(head))


def _duplicate(codec: Codec, request: str, row: JournalRow) -> Duplicate:
    place = codec.binding.result(request, row.digest, row.version)
    result = codec.open(row.result, place, "the reply kept for a repeated request")
    return Duplicate(version=row.version, result=bytes(result))


def hashed(digest: str) -> str:
    """The caller's digest as hex of one length, whatever it was."""
    return hashlib.sha256(digest.encode()).hexdigest()


def _reused(request_id: str) -> RequestIdReused:
    return RequestIdReused(f"request_id {request_id!r} was used before with another payload; give each request its own")


def _moved(head: int, expected: int) -> VersionConflict:
    return VersionConflict(f"the memory is at version {head}, not at {expected}; read it again", head=head)
