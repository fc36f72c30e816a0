"""Start-up checks: a server whose settings cannot keep what we promise is refused, with the setting to change."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from hope_serve.api import Durability
from hope_serve.errors import FailedPrecondition, Unavailable
from hope_serve.memory.redis.address import Address, Host
from hope_serve.memory.redis.errors import named
from hope_serve.memory.redis.library import read_epoch
from hope_serve.memory.redis.link import ReplyError
from hope_serve.memory.redis.node import Limits, Node

_FUNCTIONS_SINCE = (7, 0)
_WAITAOF_SINCE = (7, 2)
_LOADING_PAUSE_SECONDS = 0.25
_log = logging.getLogger(__name__)


async def check_servers(servers: Sequence[Node], address: Address, limits: Limits) -> str:
    """Check every server; the epoch that all their functions share.

    Raises:
        FailedPrecondition: naming server, setting, value and remedy.
        Unavailable: a server does not answer, does not end loading its data, or has no functions.
    """
    epochs: set[str] = set()
    for server in servers:
        info = await _info_when_loaded(server, limits)
        _check_version(server.host, info, address.durability)
        _check_eviction(server.host, info)
        if address.durability is not Durability.VOLATILE:
            await _check_disk(server, info)
        if address.durability is Durability.REPLICATED_FSYNC:
            await _check_replica(server.host, info, address, limits)
        epochs.add(await read_epoch(server))
    if len(epochs) != 1:
        raise FailedPrecondition(
            f"the servers have functions of {len(epochs)} installations; run `hope-serve memory install-functions`"
        )
    return epochs.pop()


def _check_version(host: Host, info: dict[str, str], durability: Durability) -> None:
    version = info.get("redis_version", "0.0")
    found = tuple(int(part) for part in version.split(".")[:2])
    needed = _WAITAOF_SINCE if durability is Durability.REPLICATED_FSYNC else _FUNCTIONS_SINCE
    if found < needed:
        raise _refused(host, f"version {version} is too old for {durability.value}; {needed[0]}.{needed[1]} is needed")


def _check_eviction(host: Host, info: dict[str, str]) -> None:
    if (policy := info.get("maxmemory_policy", "")) != "noeviction":
        raise _refused(host, f"maxmemory-policy {policy!r} would throw memories away; set it to noeviction")


async def _check_disk(node: Node, info: dict[str, str]) -> None:
    fsync = await _setting(node, "appendfsync")
    if info.get("aof_enabled") != "1" or fsync != "always":
        appendonly = "yes" if info.get("aof_enabled") == "1" else "no"
        raise _refused(
            node.host,
            f"appendonly is {appendonly} and appendfsync {fsync}; set appendonly yes and appendfsync always, or "
            "give up the promise with durability=volatile in the URL",
        )


async def _check_replica(host: Host, info: dict[str, str], address: Address, limits: Limits) -> None:
    """Exactly one: a commit confirmed by one of two replicas is lost when the other is promoted."""
    replicas = [value for name, value in info.items() if name.startswith("slave") and "ip=" in value]
    online = [_replica_host(value) for value in replicas if "state=online" in value]
    if len(replicas) != 1 or len(online) != 1:
        raise _refused(host, f"it has {len(replicas)} replicas, {len(online)} online; replicated_fsync needs just one")
    replica = Node(online[0], address, limits)
    try:
        await _check_disk(replica, await _info_when_loaded(replica, limits))
    finally:
        await replica.close()


async def _info_when_loaded(node: Node, limits: Limits) -> dict[str, str]:
    """While a server reads its append-only file it says that it has none."""
    give_up = time.monotonic() + limits.loading_seconds
    while (info := await _info(node)).get("loading", "0") != "0":
        if time.monotonic() > give_up:
            raise Unavailable(
                f"the server {node.host[0]}:{node.host[1]} is still loading its data after "
                f"{limits.loading_seconds:g} s ({info.get('loading_loaded_perc')} % are read); start again when it has",
                reason="STORE_LOADING",
            )
        _log.info("waiting for %s:%s, which is loading its data", *node.host)
        await asyncio.sleep(_LOADING_PAUSE_SECONDS)
    return info


async def _info(node: Node) -> dict[str, str]:
    reply = await node.ask("INFO")
    if isinstance(reply, ReplyError):
        raise named(reply)
    assert isinstance(reply, bytes)
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, separator, value in lines if separator}


async def _setting(node: Node, name: str) -> str:
    reply = await node.ask("CONFIG", "GET", name)
    if isinstance(reply, ReplyError):
        raise _refused(
            node.host,
            f"{name} cannot be read ({reply}); allow `CONFIG GET`, or give up the promise with durability=volatile",
        )
    assert isinstance(reply, list)
    assert isinstance(reply[1], bytes)
    return reply[1].decode()


def _replica_host(value: str) -> Host:
    fields = dict(field.split("=", 1) for field in value.split(",") if "=" in field)
    return fields["ip"], int(fields["port"])


def _refused(host: Host, message: str) -> FailedPrecondition:
    return FailedPrecondition(f"the server {host[0]}:{host[1]} is refused: {message}", reason="STORE_SETTINGS")
