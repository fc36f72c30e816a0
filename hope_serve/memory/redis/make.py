"""Puts a Redis store together, and installs the functions it needs."""

from __future__ import annotations

from hope_serve.memory.keys import KeyRing
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.redis.address import Address, parse_address
from hope_serve.memory.redis.backend import RedisBackend
from hope_serve.memory.redis.calls import Calls
from hope_serve.memory.redis.connection import RedisConnection
from hope_serve.memory.redis.installation import InstallationKeys
from hope_serve.memory.redis.library import install
from hope_serve.memory.redis.node import Limits
from hope_serve.memory.sealed_store import SealedStore


def make_redis_store(address: Address, keys: KeyRing | None, options: StoreOptions, limits: Limits) -> SealedStore:
    """A store that is not open yet. Without keys, a key kept in the store seals by tags alone."""
    connection = RedisConnection(address, limits)
    calls = Calls(connection.link, address.durability, wait_ms=limits.wait_ms)
    return SealedStore(RedisBackend(calls, connection), keys or InstallationKeys(calls), options)


async def install_functions(url: str) -> str:
    """Load the function library on every server of the store; its epoch. The URL carries the installing credential.

    Raises:
        InvalidRequest: the URL is wrong.
        FailedPrecondition: the credential may not load functions, or the servers do not belong together.
        Unavailable: a server does not answer.
    """
    connection = RedisConnection(parse_address(url), Limits())
    try:
        return await install(await connection.link.servers())
    finally:
        await connection.close()
