"""Pods that come, go and are killed while users call; the first one stays, so that its memory can be watched."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

DETECT_SECONDS = 5.0
"""As long as a killed pod may stand in everybody's lists, as in a cluster."""


class Turnover:
    """``events``: (when, in monotonic seconds; what happened)."""

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self.events: list[tuple[float, str]] = []

    async def run(self, every_seconds: float) -> None:
        """Until cancelled: a pod is replaced, one is killed and replaced, one is added and later sent away; again."""
        for change in itertools.cycle((self._replace, self._kill, self._grow, self._shrink)):
            await asyncio.sleep(every_seconds)
            await asyncio.shield(change())

    async def _replace(self) -> None:
        self._note("replaced")
        await self._stack.replace_pod(self._stack.pods[1])

    async def _kill(self) -> None:
        self._note("killed")
        pod = self._stack.pods[1]
        await self._stack.kill_pod(pod)
        await asyncio.sleep(DETECT_SECONDS)
        await self._stack.forget_pod(pod)
        await self._stack.add_pod()

    async def _grow(self) -> None:
        self._note("added")
        await self._stack.add_pod()

    async def _shrink(self) -> None:
        self._note("sent away")
        await self._stack.retire_pod(self._stack.pods[1])

    def _note(self, what: str) -> None:
        self.events.append((time.monotonic(), what))
