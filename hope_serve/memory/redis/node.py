"""One server: two pools of connections, so that large transfers never stand before small calls."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis.exceptions as refusals
from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hope_serve.errors import Unavailable
from hope_serve.memory.redis.address import Address, Host
from hope_serve.memory.redis.insistence import insist
from hope_serve.memory.redis.link import Argument, Command, Reply, ReplyError

# redis-py takes the code off the answers that it has a class for.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (refusals.MovedError, "MOVED"),  # before ASK, whose class it derives from
    (refusals.AskError, "ASK"),
    (refusals.OutOfMemoryError, "OOM"),
    (refusals.ReadOnlyError, "READONLY"),
    (refusals.NoPermissionError, "NOPERM"),
    (refusals.AuthenticationError, "NOAUTH"),
    (refusals.ClusterDownError, "CLUSTERDOWN"),
    (refusals.MasterDownError, "MASTERDOWN"),
    (refusals.TryAgainError, "TRYAGAIN"),
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a link.

    Args:
        small_connections, bulk_connections: of each server.
        small_seconds, bulk_seconds: within which a call ends, connecting included.
        in_flight: calls under way before further ones are refused.
        wait_ms: within which the disks must have confirmed a write.
        loading_seconds: for a server that is just reading its data from its disk, when a store is opened.
    """

    small_connections: int = 16
    bulk_connections: int = 4
    small_seconds: float = 1.5
    bulk_seconds: float = 1.75
    in_flight: int = 256
    wait_ms: int = 1000
    loading_seconds: float = 60.0


class Node:
    """A server at one address. Every call has a connection to itself; a call that did not end well closes it."""

    def __init__(self, host: Host, address: Address, limits: Limits) -> None:
        self.host = host
        self._seconds = limits.small_seconds
        self._small = _pool(host, address, limits.small_connections)
        self._bulk = _pool(host, address, limits.bulk_connections)

    async def run(
        self, commands: Sequence[Command], *, then: Sequence[Command] = (), bulk: bool = False
    ) -> list[Reply]:
        """Run the commands in order on one connection. The caller sets the time limit. Raises Unavailable."""
        pool = self._bulk if bulk else self._small
        try:
            return await _exchange(pool, commands, then)
        except refusals.AuthenticationError as error:
            return [ReplyError(f"NOAUTH {error}")] * (len(commands) + len(then))
        except (refusals.RedisError, OSError) as error:
            name, port = self.host
            raise Unavailable(
                f"the store at {name}:{port} does not answer ({error}); try again with the same request id"
            ) from error

    async def ask(self, *command: Argument) -> Reply:
        """The reply to one command that may be repeated, within the time of a small call. Raises Unavailable."""
        return (await insist(lambda: self.run([command]), seconds=self._seconds))[0]

    async def subscribe(self, channel: str) -> AsyncIterator[str | None]:
        """Messages on a channel, after None for the moment from which none is missed. Raises Unavailable."""
        connection: AbstractConnection = await self._small.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command(connection.pack_commands([("SUBSCRIBE", channel)]))
            while True:
                kind, _, text = await connection.read_response(disable_decoding=True, timeout=math.inf)
                yield text.decode() if kind == b"message" else None
        except (refusals.RedisError, OSError) as error:
            raise Unavailable(f"no messages from {self.host[0]}:{self.host[1]} ({error})") from error
        finally:
            await connection.disconnect(nowait=True)
            await self._small.release(connection)

    async def close(self) -> None:
        """Disconnect."""
        await self._small.disconnect()
        await self._bulk.disconnect()


async def _exchange(pool: BlockingConnectionPool, *batches: Sequence[Command]) -> list[Reply]:
    connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
    ended_well = False
    try:
        replies: list[Reply] = []
        for batch in batches:
            if batch:
                await connection.send_packed_command(connection.pack_commands(batch), check_health=False)
                replies += [await _read(connection) for _ in batch]
        ended_well = True
    finally:
        if not ended_well:
            await connection.disconnect(nowait=True)
        await pool.release(connection)
    return replies


async def _read(connection: AbstractConnection) -> Reply:
    try:
        reply: Reply = await connection.read_response(disable_decoding=True, timeout=math.inf)
    except refusals.ResponseError as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "")
        return ReplyError(f"{code} {error}".strip())
    return reply


def _pool(host: Host, address: Address, connections: int) -> BlockingConnectionPool:
    """Connections that never repeat a command by themselves: what a lost answer means is not theirs to decide."""
    options: dict[str, Any] = {}
    kind: type[Connection] = Connection
    if address.tls:
        kind = SSLConnection
        options["ssl_ca_certs"] = address.certificate or None
    return BlockingConnectionPool(
        max_connections=connections,
        timeout=None,
        connection_class=kind,
        host=host[0],
        port=host[1],
        db=address.database,
        username=address.username or None,
        password=address.password or None,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=1.0,
        driver_info=None,
        **options,
    )
