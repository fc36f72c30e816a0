"""Adapt from call to commit: learn on the newest version, write it exactly once, learn again if somebody was first."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from hope_serve.api import AdaptMetrics, AdaptMode, AdaptRequest, AdaptResult
from hope_serve.api.engine import Engine, EngineFault, LearnTask, Taught
from hope_serve.errors import DeadlineExceeded, FailedPrecondition, HopeError, VersionConflict
from hope_serve.memory.snapshot import Counter, Snapshot, combine_digests, digest_tensor
from hope_serve.memory.store import Commit, Committed, Conflict, Duplicate, Gone, Head
from hope_serve.metrics import Metrics
from hope_serve.service.warm import Memories, Warm


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Carries out adaptations."""

    engine: Engine[Any, Any, Any]
    memories: Memories
    metrics: Metrics

    async def adapt(self, request: AdaptRequest) -> AdaptResult:
        """Learn a document exactly once.

        Raises:
            RequestIdReused: the id was used with another payload.
            VersionConflict: the memory is not at ``expected_version``.
            FailedPrecondition: another model's memory, an erased one, or an update that the guard refused.
            DeadlineExceeded, Exhausted, Unavailable, CorruptMemory: nothing was acknowledged; the same id may retry.
        """
        began = time.monotonic()
        try:
            left = None if request.deadline == math.inf else max(0.0, request.deadline - began)
            async with asyncio.timeout(left):
                result = await self._adapt(request)
        except TimeoutError:
            self.metrics.adapt_total(outcome="failed").inc()
            raise DeadlineExceeded(
                "the deadline passed before the commit was confirmed; retry with the same request_id"
            ) from None
        except (HopeError, EngineFault) as error:
            refused = isinstance(error, FailedPrecondition)
            self.metrics.adapt_total(outcome="refused" if refused else "failed").inc()
            raise
        self._observe(request, result, time.monotonic() - began)
        return result

    async def _adapt(self, request: AdaptRequest) -> AdaptResult:
        store = self.memories.store
        async with self.memories.writing(request.owner):
            if found := await store.find_request(request.owner, request.request_id, request.payload_digest):
                return self._replayed(found)
            while True:
                head, base = await self.memories.base(request.owner)
                _check_expected(request, head)
                taught = await self._teach(request, base)
                if reason := _skip_reason(request, taught.metrics):
                    return self._result(head.version, head, "", taught, skip_reason=reason)
                result = await self._commit(request, head, base, taught)
                if result:
                    return result
                # Another writer was first: what was learned belongs to a version that is no longer the newest.
                self.metrics.commit_conflicts_total().inc()
                self.memories.forget(request.owner)

    async def _teach(self, request: AdaptRequest, base: Warm | None) -> Taught[Any]:
        before = base.learned if base else self.memories.codec.blank()
        return await self.engine.learn(
            LearnTask(
                tokens=request.tokens,
                before=before,
                options=request.options,
                deadline=request.deadline,
                owner=request.owner,
            )
        )

    async def _commit(
        self, request: AdaptRequest, head: Head, base: Warm | None, taught: Taught[Any]
    ) -> AdaptResult | None:
        """Write the new version; None when another writer was first."""
        warm, snapshot, unmoved = await asyncio.to_thread(self._next_version, head.version + 1, base, taught.learned)
        digest = combine_digests(snapshot.fingerprint, warm.counters, warm.digests)
        result = self._result(warm.version, head, digest, taught)
        commit = Commit(
            base_version=head.version,
            base_mark=head.mark,
            request_id=request.request_id,
            request_digest=request.payload_digest,
            snapshot=snapshot,
            unmoved=unmoved,
            result=msgspec.json.encode(result),
            source=request.source,
        )
        match await self.memories.store.commit(request.owner, commit):
            case Committed(mark=mark):
                self.memories.keep(request.owner, replace(warm, mark=mark))
                self._count_updates(base, taught.learned)
                return result
            case Duplicate() as found:
                return self._replayed(found)
            case Conflict():
                return None
            case Gone():
                self.memories.forget(request.owner, reason="erased")
                raise FailedPrecondition(
                    "the memory was erased while the text was being learned; nothing was written; "
                    "send it again under a new request_id to begin a new memory",
                    reason="MEMORY_ERASED",
                )

    def _next_version(self, version: int, base: Warm | None, learned: Any) -> tuple[Warm, Snapshot, frozenset[str]]:
        """The memory as it will be kept, the snapshot to commit, and the tensors that need no writing."""
        counters: dict[str, Counter] = {"adapts": int(base.counters.get("adapts", 0)) + 1 if base else 1}
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
        """The first reply again, marked as such."""
        self.metrics.idempotent_replays_total().inc()
        first = msgspec.json.decode(found.result, type=AdaptResult)
        return replace(first, duplicate=True)

    def _count_updates(self, base: Warm | None, learned: Any) -> None:
        for level, count in self.memories.codec.updates(learned, base.learned if base else None).items():
            self.metrics.memory_updates_total(level=str(level)).inc(count)

    def _observe(self, request: AdaptRequest, result: AdaptResult, seconds: float) -> None:
        metrics = self.metrics
        if result.duplicate:
            outcome = "duplicate"
        elif request.options.mode is AdaptMode.DRY_RUN:
            outcome = "dry_run"
        else:
            outcome = "skipped" if result.metrics.skip_reason else "committed"
        metrics.adapt_total(outcome=outcome).inc()
        metrics.adapt_duration_seconds().observe(seconds)
        if outcome == "duplicate":
            return
        metrics.adapt_tokens_total().inc(result.metrics.tokens_used)
        metrics.adapt_nll_delta().observe(result.metrics.nll_after - result.metrics.nll_before)
        metrics.adapt_surprise().observe(result.metrics.surprise)
        for level in result.metrics.levels:
            metrics.memory_drift_ratio(level=str(level.level)).observe(level.drift)


def _check_expected(request: AdaptRequest, head: Head) -> None:
    version = head.version if head.exists else 0
    if request.expected_version is not None and request.expected_version != version:
        raise VersionConflict(
            f"expected_version is {request.expected_version}, but the memory stands at version {version}; "
            "read it again, or leave expected_version out",
            head=version,
        )


def _skip_reason(request: AdaptRequest, metrics: AdaptMetrics) -> str:
    """Why nothing is to be written; empty when it is."""
    if request.options.mode is AdaptMode.DRY_RUN:
        return "dry run: nothing was written"
    improved = metrics.nll_after < metrics.nll_before
    if request.options.mode is AdaptMode.COMMIT_IF_IMPROVED and not improved:
        return (
            f"the text's loss did not fall ({metrics.nll_before:.4f} before, {metrics.nll_after:.4f} after): "
            "nothing was written"
        )
    return ""
