"""Adapt from call to commit: learn on the newest version, write it exactly once, learn again if somebody was first."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from hope_serve.api import AdaptRequest, AdaptResult
from hope_serve.api.engine import Engine, LearnTask, Taught
from hope_serve.service.commits import Claim, Commits, check_expected, skip_reason
from hope_serve.service.warm import Warm


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Carries out adaptations."""

    engine: Engine[Any, Any, Any]
    commits: Commits

    async def adapt(self, request: AdaptRequest) -> AdaptResult:
        """Learn a document exactly once.

        Raises:
            RequestIdReused: the id was used with another payload.
            VersionConflict: the memory is not at ``expected_version``.
            FailedPrecondition: another model's memory, an erased one, or an update that the guard refused.
            DeadlineExceeded, Exhausted, Unavailable, CorruptMemory: nothing was acknowledged; the same id may retry.
        """
        began = time.monotonic()
        result = await self.commits.in_time(request.deadline, self._adapt(request))
        self.commits.observe(request.owner, request.options.mode, result, time.monotonic() - began)
        return result

    async def _adapt(self, request: AdaptRequest) -> AdaptResult:
        commits, memories = self.commits, self.commits.memories
        claim = Claim(
            owner=request.owner,
            request_id=request.request_id,
            payload_digest=request.payload_digest,
            source=request.source,
        )
        async with memories.writing(request.owner):
            if found := await commits.find(claim):
                return found
            while True:
                head, base = await memories.base(request.owner)
                check_expected(request.expected_version, head)
                taught = await self._teach(request, base)
                if reason := skip_reason(request.options, taught.metrics):
                    return commits.unwritten(head, taught, reason)
                if result := await commits.commit(claim, head, base, taught):
                    return result
                commits.metrics.commit_conflicts_total().inc()

    async def _teach(self, request: AdaptRequest, base: Warm | None) -> Taught[Any]:
        return await self.engine.learn(
            LearnTask(
                tokens=request.tokens,
                before=base.learned if base else self.commits.memories.codec.blank(),
                options=request.options,
                deadline=request.deadline,
                owner=request.owner,
            )
        )
