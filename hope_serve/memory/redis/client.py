"""The link over real connections: bounded, never cancelled in mid-air, every call ends within its own time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hope_serve.errors import Exhausted, Unavailable
from hope_serve.memory.redis.address import Address
from hope_serve.memory.redis.link import Command, Reply, ReplyError
from hope_serve.memory.redis.node import Limits, Node
from hope_serve.memory.redis.topology import make_topology

_ELSEWHERE = ("MOVED", "ASK", "READONLY", "CLUSTERDOWN", "MASTERDOWN")


class RedisLink:
    """A ``Link``; the calls are documented there."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._limits = limits
        self._topology = make_topology(address, limits)
        self._calls: set[asyncio.Task[list[Reply]]] = set()
        self._closed = False

    async def run(
        self, key: str, commands: Sequence[Command], *, then: Sequence[Command] = (), bulk: bool = False
    ) -> list[Reply]:
        """Run the commands on one connection to the server that holds the key."""
        if self._closed:
            raise Unavailable("the store is closed")
        if len(self._calls) >= self._limits.in_flight:
            raise Exhausted(f"{len(self._calls)} calls to the store are under way already; try again later")
        call = asyncio.create_task(self._run_in_time(key, commands, then, bulk))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        return await asyncio.shield(call)

    async def servers(self) -> Sequence[Node]:
        """Every server that holds keys. Raises Unavailable."""
        seconds = self._limits.small_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._topology.primaries()
        except TimeoutError as error:
            raise Unavailable(f"the store's servers could not be learned within {seconds} s; try again") from error

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        self._closed = True
        if self._calls:
            await asyncio.wait(self._calls)
        await self._topology.close()

    def _forget(self, call: asyncio.Task[list[Reply]]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # whoever asked may be gone; the error was theirs

    async def _run_in_time(
        self, key: str, commands: Sequence[Command], then: Sequence[Command], bulk: bool
    ) -> list[Reply]:
        seconds = self._limits.bulk_seconds if bulk else self._limits.small_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._run(key, commands, then, bulk)
        except TimeoutError as error:
            self._topology.doubt()
            raise Unavailable(
                f"the store did not answer within {seconds} s and the outcome is unknown; try again with the same "
                "request id"
            ) from error
        except Unavailable:
            self._topology.doubt()
            raise

    async def _run(self, key: str, commands: Sequence[Command], then: Sequence[Command], bulk: bool) -> list[Reply]:
        replies = await (await self._topology.node(key)).run(commands, then=then, bulk=bulk)
        codes = {reply.code for reply in replies if isinstance(reply, ReplyError)}
        if codes.isdisjoint(_ELSEWHERE):
            return replies
        self._topology.doubt()
        if "MOVED" not in codes:
            return replies
        return await (await self._topology.node(key)).run(commands, then=then, bulk=bulk)
