"""A service that takes from callers' allowances; it stands where the RPCs expect the service itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from hope_serve.api import (
    AdaptRequest,
    AdaptResult,
    AdaptStreamRequest,
    AdaptStreamResult,
    Delta,
    EvaluateRequest,
    Evaluation,
    GenerateEvent,
    GenerateRequest,
    Owner,
    ScoreRequest,
    ScoreResult,
    StreamedPart,
)
from hope_serve.server.allowances import Allowances, Demand
from hope_serve.server.owners import current_caller

if TYPE_CHECKING:
    from hope_serve.service import Service


def rationed(service: Service, allowances: Allowances) -> Service:
    """``service``, behind ``allowances``."""
    return cast("Service", _Rationed(service, allowances))


class _Rationed:
    def __init__(self, service: Service, allowances: Allowances) -> None:
        self._service = service
        self._allowances = allowances

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent]:
        caller, sampling = current_caller(), request.sampling
        self._allowances.check_sampling(caller, max_tokens=sampling.max_tokens, priority=request.priority)
        tokens = len(request.prompt)
        demand = Demand(slots=sampling.n, field="sampling.n", waiting=tokens, reads=tokens)
        with self._allowances.entered(caller, _user(request.owner), demand) as meter:
            async with aclosing(self._service.generate(request)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        meter.answered(len(event.token_ids))
                    yield event

    async def score(self, request: ScoreRequest) -> tuple[ScoreResult, ...]:
        count = len(request.continuations)
        tokens = count * len(request.prompt) + sum(map(len, request.continuations))
        demand = Demand(slots=count, field="continuations (count)", waiting=tokens, reads=tokens)
        with self._allowances.entered(current_caller(), _user(request.owner), demand):
            return await self._service.score(request)

    async def evaluate(self, request: EvaluateRequest) -> tuple[Evaluation, ...]:
        once = sum(len(probe.prompt) + len(probe.continuation) for probe in request.probes)
        tokens = once * (1 + max(1, len(request.versions)))  # by the plain model too
        demand = Demand(slots=len(request.probes), field="probes (count)", waiting=tokens, reads=tokens)
        with self._allowances.entered(current_caller(), request.owner.user, demand):
            return await self._service.evaluate(request)

    async def adapt(self, request: AdaptRequest) -> AdaptResult:
        with self._allowances.entered(current_caller(), request.owner.user, lesson_demand(request)):
            return await self._service.adapt(request)

    async def adapt_stream(self, request: AdaptStreamRequest, parts: AsyncGenerator[StreamedPart]) -> AdaptStreamResult:
        """One slot from the start to the end; every part waits, and is paid for, when its turn to be learned comes."""
        caller, user = current_caller(), request.owner.user

        @asynccontextmanager
        async def paid(num_tokens: int) -> AsyncIterator[None]:
            while seconds := self._allowances.seconds_to_learning(caller, user):  # noqa: ASYNC110 (time alone fills it)
                await asyncio.sleep(seconds)
            demand = Demand(slots=0, waiting=num_tokens, learns=num_tokens * request.options.passes)
            with self._allowances.entered(caller, user, demand, checked=False):
                yield

        self._allowances.check_learning(caller, user)
        with self._allowances.entered(caller, user, Demand()):
            return await self._service.adapt_stream(request, parts, paid)


def lesson_demand(request: AdaptRequest) -> Demand:
    """What an adaptation asks for."""
    tokens = len(request.tokens)
    return Demand(waiting=tokens, learns=tokens * request.options.passes)


def _user(owner: Owner | None) -> str:
    return owner.user if owner else ""
