"""Log-likelihoods: of continuations, and of probes by several versions of a memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from hope_serve.api import (
    EvaluateRequest,
    Evaluation,
    MemoryChoice,
    OnMissing,
    Probe,
    ScoreRequest,
    ScoreResult,
)
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.memories import Memories, Warm
from hope_serve.engine.pending import Pending
from hope_serve.engine.sequence import Purpose, Sequence, Start


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Weighs tokens on the engine's thread."""

    memories: Memories
    loop: EngineLoop

    async def score(self, request: ScoreRequest) -> tuple[ScoreResult, ...]:
        """The log-likelihood of every continuation after the prompt."""
        warm = await self.memories.choose(request.owner, request.memory) if request.owner else None
        probes = [Probe(prompt=request.prompt, continuation=tokens) for tokens in request.continuations]
        return await self._weigh(probes, warm, request.deadline)

    async def evaluate(self, request: EvaluateRequest) -> tuple[Evaluation, ...]:
        """The probes by the plain model, then by each version; every version is there before any is weighed."""
        warms: list[Warm | None] = [None]
        for choice in _choices(request.versions):
            warms.append(await self.memories.choose(request.owner, choice))
        return tuple([_evaluation(warm, await self._weigh(request.probes, warm, request.deadline)) for warm in warms])

    async def _weigh(self, probes: Seq[Probe], warm: Warm | None, deadline: float) -> tuple[ScoreResult, ...]:
        return tuple(await asyncio.gather(*(self._one(probe, warm, deadline) for probe in probes)))

    async def _one(self, probe: Probe, warm: Warm | None, deadline: float) -> ScoreResult:
        pending = Pending()
        tokens = [*probe.prompt, *probe.continuation]
        sequence = Sequence(
            purpose=Purpose.SCORE,
            tokens=tokens[:-1],
            targets=tokens[1:],
            score_from=len(probe.prompt) - 1,
            listener=pending,
            start=Start(deltas=warm.deltas if warm else None),
            deadline=deadline,
        )
        await pending.finished(sequence, self.loop)
        return ScoreResult(
            logprob=sum(sequence.token_logprobs),
            token_logprobs=tuple(sequence.token_logprobs),
            is_greedy=all(sequence.greedy_hits),
        )


def _choices(versions: tuple[int, ...]) -> list[MemoryChoice]:
    if not versions:
        return [MemoryChoice(on_missing=OnMissing.FAIL)]
    return [MemoryChoice(exact_version=version) for version in versions]


def _evaluation(warm: Warm | None, scores: tuple[ScoreResult, ...]) -> Evaluation:
    count = sum(len(score.token_logprobs) for score in scores)
    total = sum(score.logprob for score in scores)
    return Evaluation(version=warm.version if warm else 0, nll=-total / count, num_tokens=count, scores=scores)
