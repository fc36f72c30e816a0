"""Score and EvaluateMemory: how likely given tokens are, with memories and without."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from hope_serve.api import (
    EvaluateRequest,
    Evaluation,
    MemoryChoice,
    OnMissing,
    ScoreRequest,
    ScoreResult,
)
from hope_serve.api.engine import Engine, ScoreTask
from hope_serve.service.warm import Memories, Warm


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Weighs tokens on the engine."""

    engine: Engine[Any, Any, Any]
    memories: Memories

    async def score(self, request: ScoreRequest) -> tuple[ScoreResult, ...]:
        """The log-likelihood of every continuation after the prompt."""
        warm = await self.memories.choose(request.owner, request.memory) if request.owner else None
        return await self._weigh(request.prompt, request.continuations, warm, request)

    async def evaluate(self, request: EvaluateRequest) -> tuple[Evaluation, ...]:
        """The probes by the plain model, then by each version; every version is there before any is weighed."""
        warms: list[Warm | None] = [None]
        for choice in _choices(request.versions):
            warms.append(await self.memories.choose(request.owner, choice))
        return tuple([_evaluation(warm, await self._probed(request, warm)) for warm in warms])

    async def _probed(self, request: EvaluateRequest, warm: Warm | None) -> tuple[ScoreResult, ...]:
        weighed = (self._weigh(p.prompt, (p.continuation,), warm, request) for p in request.probes)
        scores = await asyncio.gather(*weighed)
        return tuple(score for (score,) in scores)

    async def _weigh(
        self,
        prompt: tuple[int, ...],
        continuations: Seq[tuple[int, ...]],
        warm: Warm | None,
        request: ScoreRequest | EvaluateRequest,
    ) -> tuple[ScoreResult, ...]:
        memory = warm.reads if warm else None
        return await self.engine.score(
            ScoreTask(
                prompt=prompt,
                continuations=continuations,
                memory=memory,
                deadline=request.deadline,
                owner=request.owner,
                payer="" if isinstance(request, EvaluateRequest) else request.payer,
            )
        )


def _choices(versions: tuple[int, ...]) -> list[MemoryChoice]:
    if not versions:
        return [MemoryChoice(on_missing=OnMissing.FAIL)]
    return [MemoryChoice(exact_version=version) for version in versions]


def _evaluation(warm: Warm | None, scores: tuple[ScoreResult, ...]) -> Evaluation:
    count = sum(len(score.token_logprobs) for score in scores)
    total = sum(score.logprob for score in scores)
    return Evaluation(version=warm.version if warm else 0, nll=-total / count, num_tokens=count, scores=scores)
