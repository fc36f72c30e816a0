"""Erasures, told to every pod that listens. A lost notice harms nothing: versions are checked before every use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hope_serve.errors import HopeError
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.client import RedisLink

_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class ErasureNotices:
    """Listens on the channel of erasures while the store is open."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._task: asyncio.Task[None] | None = None
        self.listeners: list[Callable[[str | None], None]] = []

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.wait([task])

    async def _listen(self) -> None:
        while True:
            try:
                node = (await self._link.servers())[0]
                async for owner in node.subscribe(layout.ERASED_CHANNEL):
                    self._tell(owner)
            except HopeError as error:
                _log.warning("erasures are not heard of for now: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)

    def _tell(self, owner: str | None) -> None:
        for listener in self.listeners:
            listener(owner)
