"""Log-likelihoods: of continuations, and of probes by several versions of a memory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

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
        return await self._continuations(request, warm)

    async def evaluate(self, request: EvaluateRequest) -> tuple[Evaluation, ...]:
        """The probes by the plain model, then by each version; every version is there before any is weighed."""
        warms: list[Warm | None] = [None]
        for choice in _choices(request.versions):
            warms.append(await self.memories.choose(request.owner, choice))
        return tuple([_evaluation(warm, await self._weigh(request.probes, warm, request.deadline)) for warm in warms])

    async def _continuations(self, request: ScoreRequest, warm: Warm | None) -> tuple[ScoreResult, ...]:
        """Continuations of one prompt, which is read once: each of them begins with its last token, unread so far."""
        deltas = warm.deltas if warm else None
        *opening, last = request.prompt
        start = Start(deltas=deltas)
        if opening and len(request.continuations) > 1:
            read = await self._run(
                Sequence(
                    purpose=Purpose.SCORE,
                    tokens=opening,
                    listener=Pending(),
                    start=start,
                    deadline=request.deadline,
                    keeps_state=True,
                )
            )
            start, opening = Start(state=read.final_state, consumed=len(opening), deltas=deltas), []
        probes = [((*opening, last), continuation) for continuation in request.continuations]
        return await _together(self._one(*probe, start, request.deadline) for probe in probes)

    async def _weigh(self, probes: Seq[Probe], warm: Warm | None, deadline: float) -> tuple[ScoreResult, ...]:
        start = Start(deltas=warm.deltas if warm else None)
        return await _together(self._one(probe.prompt, probe.continuation, start, deadline) for probe in probes)

    async def _one(
        self, prompt: tuple[int, ...], continuation: tuple[int, ...], start: Start, deadline: float
    ) -> ScoreResult:
        tokens = [*prompt, *continuation]
        sequence = await self._run(
            Sequence(
                purpose=Purpose.SCORE,
                tokens=tokens[:-1],
                targets=tokens[1:],
                score_from=len(prompt) - 1,
                listener=Pending(),
                start=start,
                deadline=deadline,
            )
        )
        return ScoreResult(
            logprob=sum(sequence.token_logprobs),
            token_logprobs=tuple(sequence.token_logprobs),
            is_greedy=all(sequence.greedy_hits),
        )

    async def _run(self, sequence: Sequence) -> Sequence:
        assert isinstance(sequence.listener, Pending)
        return await sequence.listener.finished(sequence, self.loop)


async def _together(calls: Iterable[Coroutine[Any, Any, ScoreResult]]) -> tuple[ScoreResult, ...]:
    """All of them; when one is refused, the others are given up."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _choices(versions: tuple[int, ...]) -> list[MemoryChoice]:
    if not versions:
        return [MemoryChoice(on_missing=OnMissing.FAIL)]
    return [MemoryChoice(exact_version=version) for version in versions]


def _evaluation(warm: Warm | None, scores: tuple[ScoreResult, ...]) -> Evaluation:
    count = sum(len(score.token_logprobs) for score in scores)
    total = sum(score.logprob for score in scores)
    return Evaluation(version=warm.version if warm else 0, nll=-total / count, num_tokens=count, scores=scores)
