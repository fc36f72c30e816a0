"""What belongs to the store and to no owner: its two keys, its clock, the notes of upkeep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hope_serve.memory.owners import secret_lost
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.calls import Calls, as_bytes


async def claim_once(calls: Calls, key: str, offered: bytes) -> bytes:
    """A value that is made once, when the store is new: the one there, or else the offered one, where it will last.

    Raises:
        FailedPrecondition: it is not there, and the store is not new.
        Unavailable: it may not last: whoever wrote it was not told that the disks have it.
    """
    if held := await _lasting(calls, key):
        return held
    # Whoever was first wrote it before any owner: when owners are there, so is the value, unless it was lost.
    if await calls.plain(layout.TENANTS, ("EXISTS", layout.TENANTS)) and not await read_once(calls, key):
        raise secret_lost()
    await calls.plain(key, ("SET", key, offered, "NX"))
    return await _lasting(calls, key)


async def _lasting(calls: Calls, key: str) -> bytes:
    """The value, once the disks have it. A wait means something only after a write on the same connection: SET NX on a
    key that is there is none, and a pod that took a value which a failover then loses would be alone with it.
    """
    return as_bytes(await calls.confirmed(key, ("GET", key), ("SET", layout.beside(key), 1)))


async def read_once(calls: Calls, key: str) -> bytes:
    """Such a value; empty when it is not there."""
    return as_bytes(await calls.plain(key, ("GET", key)))


async def read_clock(calls: Calls) -> float:
    """See ``Backend.now``."""
    reply = await calls.plain(layout.SECRET, ("TIME",))
    assert isinstance(reply, list)
    seconds, microseconds = (int(as_bytes(part)) for part in reply)
    return seconds + microseconds / 1e6


async def read_marks(calls: Calls, names: Sequence[str]) -> Mapping[str, bytes]:
    """See ``Backend.marks``."""
    reply = await calls.plain(layout.MARKS, ("HMGET", layout.MARKS, *names))
    assert isinstance(reply, list)
    return {name: as_bytes(mark) for name, mark in zip(names, reply, strict=True) if mark}


async def set_mark(calls: Calls, name: str, mark: bytes) -> None:
    """See ``Backend.set_mark``."""
    if mark:
        await calls.plain(layout.MARKS, ("HSET", layout.MARKS, name, mark))
    else:
        await calls.plain(layout.MARKS, ("HDEL", layout.MARKS, name))
