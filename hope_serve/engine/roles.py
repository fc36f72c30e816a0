"""An engine of two halves, one that reads and one that learns; a server of one role has one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from hope_serve.api import ModelInfo, ScoreResult
from hope_serve.api.engine import Engine, Events, GenerateTask, LearnTask, ScoreTask, Taught
from hope_serve.errors import FailedPrecondition


class HalvedEngine:
    """``api.engine.Engine`` of others.

    Args:
        reads: generates and scores; None is refused by name.
        learns: learns; None is refused by name. At least one of both is there.
    """

    def __init__(self, *, reads: Engine[Any, Any, Any] | None, learns: Engine[Any, Any, Any] | None) -> None:
        self._reads, self._learns = reads, learns
        self._halves = [half for half in (reads, learns) if half is not None]

    @property
    def info(self) -> ModelInfo:
        """See ``Engine.info``; of the half that reads, where there is one."""
        return self._halves[0].info

    @property
    def failure(self) -> BaseException | None:
        """See ``Engine.failure``; a server that has lost one half is replaced whole."""
        return next((half.failure for half in self._halves if half.failure is not None), None)

    async def ended(self) -> None:
        """See ``Engine.ended``."""
        waiting = [asyncio.ensure_future(half.ended()) for half in self._halves]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()

    def seconds_since_step(self) -> float:
        """See ``Engine.seconds_since_step``; of the half that is further behind."""
        return max(half.seconds_since_step() for half in self._halves)

    async def start(self) -> None:
        """See ``Engine.start``."""
        for half in self._halves:
            await half.start()

    async def close(self) -> None:
        """See ``Engine.close``."""
        for half in self._halves:
            await half.close()

    async def generate(self, task: GenerateTask[Any, Any]) -> AsyncGenerator[Events[Any]]:
        """See ``Engine.generate``; FailedPrecondition where nothing reads."""
        async with aclosing(self._reading().generate(task)) as events:
            async for event in events:
                yield event

    async def score(self, task: ScoreTask[Any]) -> tuple[ScoreResult, ...]:
        """See ``Engine.score``; FailedPrecondition where nothing reads."""
        return await self._reading().score(task)

    async def learn(self, task: LearnTask[Any]) -> Taught[Any]:
        """See ``Engine.learn``; FailedPrecondition where nothing learns."""
        if self._learns is None:
            raise FailedPrecondition(
                "engine.role of this server is generate, so it learns nothing; send the call to one whose role is "
                "adapt or both",
                reason="ROLE",
            )
        return await self._learns.learn(task)

    def _reading(self) -> Engine[Any, Any, Any]:
        if self._reads is None:
            raise FailedPrecondition(
                "engine.role of this server is adapt, so it neither generates nor scores; send the call to one whose "
                "role is generate or both",
                reason="ROLE",
            )
        return self._reads
