"""What was learned becomes a version: exactly once, on the newest one, with the first reply kept beside it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from hope_serve.api import AdaptMetrics, AdaptMode, AdaptOptions, AdaptResult, Owner, Source
from hope_serve.api.engine import EngineFault, Taught
from hope_serve.errors import DeadlineExceeded, FailedPrecondition, HopeError, VersionConflict
from hope_serve.memory.snapshot import Counter, Snapshot, combine_digests, digest_tensor
from hope_serve.memory.store import Commit, Committed, Conflict, Duplicate, Gone, Head
from hope_serve.metrics import Metrics
from hope_serve.service.warm import Memories, Warm

R = TypeVar("R")

LEAST_FALL = 1e-4
"""Nats a token from which on a loss has fallen: the two readings of a text round differently, more so in 16 bits."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Which request a version is for, and how many documents it taught."""

    owner: Owner
    request_id: str
    payload_digest: str
    source: Source
    num_documents: int = 1


@dataclass(frozen=True, kw_only=True)
class Commits:
    """Writes versions, and finds those that were written before."""

    memories: Memories
    metrics: Metrics

    async def in_time(self, deadline: float, work: Awaitable[R]) -> R:
        """What ``work`` comes to before the deadline; what does not come to anything is counted.

        Raises:
            DeadlineExceeded: nothing was acknowledged; the same request id may be tried again.
        """
        try:
            async with asyncio.timeout(None if deadline == math.inf else max(0.0, deadline - time.monotonic())):
                return await work
        except TimeoutError:
            self.metrics.adapt_total(outcome="failed").inc()
            raise DeadlineExceeded(
                "the deadline passed before the commit was confirmed; retry with the same request_id"
            ) from None
        except (HopeError, EngineFault) as error:
            refused = isinstance(error, FailedPrecondition)
            self.metrics.adapt_total(outcome="refused" if refused else "failed").inc()
            raise

    async def find(self, claim: Claim) -> AdaptResult | None:
        """The first reply again, marked as such. Raises RequestIdReused."""
        found = await self.memories.store.find_request(claim.owner, claim.request_id, claim.payload_digest)
        return self._replayed(found) if found else None

    async def commit(self, claim: Claim, head: Head, base: Warm | None, taught: Taught[Any]) -> AdaptResult | None:
        """Write the new version; None when another writer was first.

        Raises:
            FailedPrecondition: the memory was erased meanwhile.
        """
        documents = claim.num_documents
        warm, snapshot, unmoved = await asyncio.to_thread(
            self._next_version, head.version + 1, base, taught.learned, documents
        )
        digest = combine_digests(snapshot.fingerprint, warm.counters, warm.digests)
        result = self._result(warm.version, head, digest, taught)
        commit = Commit(
            base_version=head.version,
            base_mark=head.mark,
            request_id=claim.request_id,
            request_digest=claim.payload_digest,
            snapshot=snapshot,
            unmoved=unmoved,
            result=msgspec.json.encode(result),
            source=claim.source,
        )
        match await self.memories.store.commit(claim.owner, commit):
            case Committed(mark=mark):
                self.memories.keep(claim.owner, replace(warm, mark=mark))
                self._count_updates(base, taught.learned)
                return result
            case Duplicate() as found:
                return self._replayed(found)
            case Conflict():
                # What was learned belongs to a version that is no longer the newest.
                self.memories.forget(claim.owner)
                return None
            case Gone():
                self.memories.forget(claim.owner, reason="erased")
                raise erased_meanwhile()

    def unwritten(self, head: Head, taught: Taught[Any], reason: str) -> AdaptResult:
        """The reply when nothing is to be written."""
        return self._result(head.version, head, "", taught, skip_reason=reason)

    def _next_version(
        self, version: int, base: Warm | None, learned: Any, documents: int
    ) -> tuple[Warm, Snapshot, frozenset[str]]:
        """The memory as it will be kept, the snapshot to commit, and the tensors that need no writing."""
        before = int(base.counters.get("adapts", 0)) if base else 0
        counters: dict[str, Counter] = {"adapts": before + documents}
        codec = self.memories.codec
        snapshot, unmoved = codec.of_memory(learned, base.learned if base else None, counters)
        kept = {name: digest for name, digest in base.digests.items() if name in unmoved} if base else {}
        warm = Warm(
            version=version,
            mark="",
            learned=learned,
            reads=learned.reads(),
            counters=dict(snapshot.counters),
            digests=kept | {name: digest_tensor(t) for name, t in snapshot.tensors.items()},
        )
        return warm, snapshot, unmoved

    def _result(
        self, version: int, head: Head, digest: str, taught: Taught[Any], *, skip_reason: str = ""
    ) -> AdaptResult:
        return AdaptResult(
            version=version,
            base_version=head.version if head.exists else 0,
            state_digest=digest,
            durability=self.memories.store.durability,
            metrics=replace(taught.metrics, skip_reason=skip_reason),
            timings=taught.timings,
        )

    def _replayed(self, found: Duplicate) -> AdaptResult:
        self.metrics.idempotent_replays_total().inc()
        first = msgspec.json.decode(found.result, type=AdaptResult)
        return replace(first, duplicate=True)

    def _count_updates(self, base: Warm | None, learned: Any) -> None:
        for level, count in self.memories.codec.updates(learned, base.learned if base else None).items():
            self.metrics.memory_updates_total(level=str(level)).inc(count)

    def observe(self, owner: Owner, mode: AdaptMode, result: AdaptResult, seconds: float) -> None:
        """Count an adaptation that was answered."""
        metrics = self.metrics
        outcome = _outcome(mode, result)
        metrics.adapt_total(outcome=outcome).inc()
        metrics.adapt_duration_seconds().observe(seconds)
        if outcome == "duplicate":
            return
        metrics.adapt_tokens_total().inc(result.metrics.tokens_used)
        metrics.tenant_tokens_total(tenant=owner.tenant, use="learned").inc(result.metrics.tokens_used)
        metrics.adapt_nll_delta().observe(result.metrics.nll_after - result.metrics.nll_before)
        metrics.adapt_surprise().observe(result.metrics.surprise)
        for level in result.metrics.levels:
            metrics.memory_drift_ratio(level=str(level.level)).observe(level.drift)


def check_expected(expected_version: int | None, head: Head) -> None:
    """Raises VersionConflict."""
    version = head.version if head.exists else 0
    if expected_version is not None and expected_version != version:
        raise VersionConflict(
            f"expected_version is {expected_version}, but the memory stands at version {version}; "
            "read it again, or leave expected_version out",
            head=version,
        )


def skip_reason(options: AdaptOptions, metrics: AdaptMetrics) -> str:
    """Why nothing is to be written; empty when it is."""
    if options.mode is AdaptMode.DRY_RUN:
        return "dry run: nothing was written"
    improved = metrics.nll_before - metrics.nll_after > LEAST_FALL
    if options.mode is AdaptMode.COMMIT_IF_IMPROVED and not improved:
        return (
            f"the text's loss did not fall by {LEAST_FALL:g} nats a token ({metrics.nll_before:.4f} before, "
            f"{metrics.nll_after:.4f} after): nothing was written"
        )
    return ""


def erased_meanwhile() -> FailedPrecondition:
    """What is said when the memory that was being taught is gone."""
    return FailedPrecondition(
        "the memory was erased while the text was being learned; nothing was written; "
        "send it again under a new request_id to begin a new memory",
        reason="MEMORY_ERASED",
    )


def _outcome(mode: AdaptMode, result: AdaptResult) -> str:
    if result.duplicate:
        return "duplicate"
    if mode is AdaptMode.DRY_RUN:
        return "dry_run"
    return "skipped" if result.metrics.skip_reason else "committed"
