"""Users' memories as a pod holds them: warm ones in RAM, the truth in the store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, replace
from typing import Any

from hope_serve.api import (
    ErasureReceipt,
    MemoryChoice,
    MemoryReport,
    MemorySummary,
    OnMissing,
    Owner,
    VersionReport,
    Warmed,
)
from hope_serve.errors import HopeError, NotFound, Unavailable
from hope_serve.memory.snapshot import Counter, TensorDigest, digest_tensor
from hope_serve.memory.store import Committed, Head, MemoryStore, StoredMemory
from hope_serve.metrics import Metrics
from hope_serve.service.codec import Codec
from hope_serve.service.turns import Turns
from hope_serve.service.unfinished import Unfinished

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Warm:
    """One version of a memory, ready to run.

    Args:
        mark: as ``Head.mark``.
        learned: everything it is made of.
        reads: what generation reads of it.
        tier: where it was found.
    """

    version: int
    mark: str
    learned: Any
    reads: Any
    counters: dict[str, Counter]
    digests: dict[str, TensorDigest]
    tier: str = "host"


class Memories:
    """Reads, keeps and describes memories.

    Args:
        warm_bytes: RAM that warm memories may take; the least recently used leave first.
    """

    def __init__(
        self,
        fingerprint: str,
        store: MemoryStore,
        codec: Codec,
        metrics: Metrics,
        *,
        warm_bytes: int,
    ) -> None:
        self._fingerprint = fingerprint
        self.store, self.codec, self._metrics = store, codec, metrics
        self._max_warm = max(1, warm_bytes // max(1, codec.warm_bytes))
        self._warm: OrderedDict[Owner, Warm] = OrderedDict()
        self.unfinished = Unfinished()
        self._turns = Turns()
        self._recheck: asyncio.Task[None] | None = None
        store.on_erased(self._erased)

    async def close(self) -> None:
        """Look after erasures no longer, and forget what broken streams had learned."""
        self.unfinished.clear()
        if self._recheck:
            self._recheck.cancel()
            await asyncio.wait([self._recheck])

    def writing(self, owner: Owner) -> AbstractAsyncContextManager[None]:
        """One adaptation of an owner at a time in this process; others meet in the store."""
        return self._turns.of(owner)

    async def choose(self, owner: Owner, choice: MemoryChoice) -> Warm | None:
        """The version that a generation reads; None for the plain model.

        Raises:
            NotFound: there is no memory and ``on_missing`` is FAIL, or not that version (yet).
            Unavailable: the store is away, and no memory that fits is warm.
        """
        try:
            head = await self._head(owner)
        except Unavailable:
            # Who is resident is still answered, from the last version that this pod knows of; the answer names it.
            if warm := self._resident(owner, choice):
                return warm
            raise
        if not head.exists:
            self.forget(owner, reason="erased")
            if choice.exact_version is None and choice.min_version is None and choice.on_missing is OnMissing.BASE:
                return None
            raise NotFound("the user has no memory; teach it with Adapt, or ask with on_missing BASE")
        if choice.min_version is not None and head.version < choice.min_version:
            raise NotFound(
                f"memory.min_version is {choice.min_version}, but the memory stands at version {head.version}; "
                "wait for the newer version or ask for less",
                reason="VERSION_NOT_FOUND",
            )
        if choice.exact_version is not None:
            return await self.load(owner, choice.exact_version, head=head)
        return (await self._at(owner, head))[1]

    async def _head(self, owner: Owner) -> Head:
        """Where the memory stands; an alarm when that is behind what this pod has seen, which was acknowledged."""
        seen = self._warm.get(owner)
        head = await self.store.head(owner)
        if seen and (head.version < seen.version or (head.version == seen.version and head.mark != seen.mark)):
            self._metrics.version_regressions_total().inc()
            _log.error(
                "version_regression: a memory is at version %d in the store and was at %d before: an old copy was put "
                "back, or a failover lost what came later",
                head.version,
                seen.version,
            )
            self.forget(owner)
        return head

    def _resident(self, owner: Owner, choice: MemoryChoice) -> Warm | None:
        """The warm memory, where it is a version that ``choice`` allows."""
        warm = self._warm.get(owner)
        if warm is None or choice.exact_version not in (None, warm.version):
            return None
        return warm if warm.version >= (choice.min_version or 0) else None

    async def warm(self, owner: Owner, choice: MemoryChoice) -> Warmed:
        """Have the memory at hand that ``choose`` would choose.

        Raises:
            NotFound, FailedPrecondition, CorruptMemory: as ``choose``.
        """
        before = self._warm.get(owner)
        chosen = await self.choose(owner, choice)
        return Warmed(version=chosen.version if chosen else 0, was_warm=chosen is not None and chosen is before)

    async def load(self, owner: Owner, version: int, *, head: Head) -> Warm:
        """A version, from RAM or from the store.

        Raises:
            NotFound, FailedPrecondition, CorruptMemory: as the store says.
        """
        began = time.monotonic()
        warm = self._warm.get(owner)
        if warm and (warm.version, warm.mark) == (version, head.mark) and version == head.version:
            self._warm.move_to_end(owner)
            self._metrics.memory_lookups_total(tier="host", result="hit").inc()
            return warm
        self._metrics.memory_lookups_total(tier="host", result="miss").inc()
        try:
            stored = await self.store.load(owner, fingerprint=self._fingerprint, version=version)
        except HopeError:
            self._metrics.memory_lookups_total(tier="store", result="error").inc()
            raise
        self._metrics.memory_lookups_total(tier="store", result="hit").inc()
        found = await asyncio.to_thread(self._restore, stored)
        if version == head.version:
            self.keep(owner, found)
        self._metrics.memory_restore_seconds(tier="store").observe(time.monotonic() - began)
        return found

    async def base(self, owner: Owner) -> tuple[Head, Warm | None]:
        """Where an adaptation starts: the head, and its memory unless there is none."""
        head = await self._head(owner)
        return await self._at(owner, head) if head.exists else (head, None)

    async def _at(self, owner: Owner, head: Head) -> tuple[Head, Warm]:
        """The memory at its head, and that head: a later one if writers passed this one while it was read.

        Raises:
            NotFound: the memory was erased meanwhile.
        """
        while True:
            try:
                return head, await self.load(owner, head.version, head=head)
            except NotFound:
                head, before = await self.store.head(owner), head
                if not head.exists or head.version == before.version:
                    raise

    def keep(self, owner: Owner, warm: Warm) -> None:
        """Keep a current version in RAM."""
        if owner in self._warm:
            self._metrics.memory_evictions_total(reason="stale").inc()
        self._warm[owner] = replace(warm, tier="host")
        self._warm.move_to_end(owner)
        if len(self._warm) > self._max_warm:
            self._warm.popitem(last=False)
            self._metrics.memory_evictions_total(reason="capacity").inc()

    def forget(self, owner: Owner, *, reason: str = "stale") -> None:
        """Drop what is kept of an owner; of one who was erased, what unfinished streams had learned as well."""
        if reason == "erased":
            self.unfinished.forget(owner)
        if self._warm.pop(owner, None):
            self._metrics.memory_evictions_total(reason=reason).inc()

    def _erased(self, key: str | None) -> None:
        """An owner was erased somewhere; None: some may have been, while nobody told us."""
        if key is None:
            if self._recheck is None or self._recheck.done():
                self._recheck = asyncio.get_running_loop().create_task(self._forget_erased(), name="erasures")
            return
        for owner in [owner for owner in self._held() if self.store.owner_key(owner) == key]:
            self.forget(owner, reason="erased")

    def _held(self) -> set[Owner]:
        """Owners of whom something is in RAM."""
        return {*self._warm, *self.unfinished.owners()}

    async def _forget_erased(self) -> None:
        with suppress(HopeError):  # the store is away again: there will be another notice when it is back
            for owner in self._held():
                if not (await self.store.head(owner)).exists:
                    self.forget(owner, reason="erased")

    def _restore(self, stored: StoredMemory) -> Warm:
        """A stored version, ready to run."""
        learned = self.codec.memory(stored.snapshot)
        return Warm(
            version=stored.version,
            mark=stored.mark,
            learned=learned,
            reads=learned.reads(),
            counters=dict(stored.snapshot.counters),
            digests={name: digest_tensor(t) for name, t in stored.snapshot.tensors.items()},
            tier="store",
        )

    async def describe(self, owner: Owner, version: int | None = None) -> MemoryReport:
        """A version's size, age, sources and levels (None: the current one)."""
        about = await self.store.describe(owner, version)
        stored = await self.store.load(owner, fingerprint=self._fingerprint, version=about.version)
        learned = await asyncio.to_thread(self.codec.memory, stored.snapshot)
        return MemoryReport(
            version=about.version,
            num_bytes=about.num_bytes,
            tokens_learned=learned.cadence.tokens,
            levels=await asyncio.to_thread(self.codec.levels, learned),
            state_digest=about.state_digest,
            sources=about.sources,
            updated_at=about.about.created_at,
        )

    async def list_owners(
        self, tenant: str, *, page_size: int, page_token: str
    ) -> tuple[tuple[MemorySummary, ...], str]:
        """A page of the tenant's memories, and the next page's token."""
        return await self.store.list_owners(tenant, page_size=page_size, page_token=page_token)

    async def versions(self, owner: Owner) -> tuple[VersionReport, ...]:
        """Every version on record, oldest first.

        Raises:
            NotFound: the owner has no memory.
        """
        if found := await self.store.versions(owner):
            return found
        raise NotFound("the user has no memory; teach it with Adapt")

    async def rollback(self, owner: Owner, *, to_version: int, expected_version: int | None, request_id: str) -> int:
        """Make an old version's content the newest version; returns its number."""
        async with self.writing(owner):
            outcome = await self.store.rollback(
                owner, to_version=to_version, expected_version=expected_version, request_id=request_id
            )
            self.forget(owner)
        if not isinstance(outcome, Committed):
            self._metrics.idempotent_replays_total().inc()
        return outcome.version

    async def delete(self, owner: Owner) -> ErasureReceipt:
        """Erase the memory and every session of an owner."""
        async with self.writing(owner):
            self.unfinished.forget(owner)  # there may be no more of the owner than this
            receipt = await self.store.erase(owner)
            self.forget(owner, reason="erased")
        return receipt

    async def delete_session(self, owner: Owner, session_id: str) -> bool:
        """Forget a conversation; whether there was one."""
        return await self.store.delete_session(owner, session_id)
