"""A store's servers from start to end: connect, refuse what cannot keep the promise, listen for erasures."""

from __future__ import annotations

from collections.abc import Callable

from hope_serve.memory.redis.address import Address
from hope_serve.memory.redis.calls import Calls
from hope_serve.memory.redis.checks import check_servers
from hope_serve.memory.redis.client import RedisLink
from hope_serve.memory.redis.errors import emptied
from hope_serve.memory.redis.node import Limits
from hope_serve.memory.redis.notices import ErasureNotices


class RedisConnection:
    """The link, the checks and the notices of one store."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self.link = RedisLink(address, limits)
        self._notices = ErasureNotices(self.link)

    async def open(self, calls: Calls) -> None:
        """Check every server and begin to listen. Raises FailedPrecondition or Unavailable."""
        servers = await self.link.servers()
        calls.epoch = await check_servers(servers, self._address, self._limits)
        self._notices.start()

    async def check(self, calls: Calls) -> None:
        """Look at every server once more. Raises FailedPrecondition or Unavailable."""
        if await check_servers(await self.link.servers(), self._address, self._limits) != calls.epoch:
            raise emptied()

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        await self._notices.stop()
        await self.link.close()

    def on_erased(self, tell: Callable[[str | None], None]) -> None:
        """See ``Backend.on_erased``."""
        self._notices.listeners.append(tell)
