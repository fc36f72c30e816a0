"""Calls of the functions: arguments in, checked answers out, and the wait for the disks that were promised."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from hope_serve.api import Durability
from hope_serve.errors import CorruptMemory, Unavailable
from hope_serve.memory.backend import HeadRow
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.errors import NOT_DURABLE, emptied, named
from hope_serve.memory.redis.link import Argument, Command, Link, Reply, ReplyError

_FIRST_WAIT_MS = 50
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a function answered: a word, and values."""

    word: str
    values: Sequence[Reply]


class Calls:
    """Calls on one installation of the functions.

    Args:
        link: the road to the servers.
        durability: where a write must be before a call returns.
        wait_ms: how long a server may take to confirm it.
    """

    def __init__(self, link: Link, durability: Durability, *, wait_ms: int) -> None:
        self._link = link
        self._wait_ms = wait_ms
        self.durability = durability
        self.epoch = ""

    async def read(self, name: str, keys: Sequence[str], *arguments: Argument) -> Answer:
        """Call a function that changes nothing."""
        command: Command = ("FCALL_RO", f"hs_{name}", len(keys), *keys, self.epoch, *arguments)
        return self._answer((await self._link.run(keys[0], [command]))[0])

    async def write(self, name: str, keys: Sequence[str], *arguments: Argument, wait: bool = True) -> Answer:
        """Call a function that writes; what it wrote, or found written, is durable when this returns.

        Args:
            wait: False for what is not promised to be durable.

        Raises:
            Unavailable: also when the write was done, but is not confirmed to be durable.
        """
        command: Command = ("FCALL", f"hs_{name}", len(keys), *keys, self.epoch, *arguments)
        if not wait:
            return self._answer((await self._link.run(keys[0], [command]))[0])
        return self._answer(await self.confirmed(keys[0], command))

    async def confirmed(self, key: str, *commands: Command) -> Reply:
        """Run commands that write, and the wait for them on the same connection; the first one's reply."""
        replies = await self._link.run(key, commands, then=self._waits())
        for reply in replies[: len(commands)]:
            check(reply)
        self._check_wait(replies[len(commands) :])
        return replies[0]

    async def plain(self, key: str, command: Command, *, bulk: bool = False) -> Reply:
        """Run one command."""
        return check((await self._link.run(key, [command], bulk=bulk))[0])

    async def stage(self, key: str, batch: Sequence[Command]) -> None:
        """Run a batch of large writes that nothing depends on yet."""
        for reply in await self._link.run(key, batch, bulk=True):
            check(reply)

    def _waits(self) -> list[Command]:
        """Sent after the write was answered, never with it: a replica that reads the question together with the write
        answers it before its disk has, and not again for a second. The short wait asks; the long one asks again.
        """
        if self.durability is Durability.REPLICATED_FSYNC:
            return [("WAITAOF", 1, 1, min(_FIRST_WAIT_MS, self._wait_ms)), ("WAITAOF", 1, 1, self._wait_ms)]
        return []

    def _check_wait(self, replies: Sequence[Reply]) -> None:
        """Raises Unavailable when the write is not on the disks it was promised to be on."""
        for reply in replies[-1:]:
            confirmed = check(reply)
            assert isinstance(confirmed, list)
            if confirmed[0] != 1 or not confirmed[1]:
                raise Unavailable(
                    f"the write is not confirmed by the disks of primary and replica yet ({confirmed!r} of [1, 1] "
                    f"within {self._wait_ms} ms); repeat it with the same request id",
                    reason=NOT_DURABLE,
                )

    def _answer(self, reply: Reply) -> Answer:
        values = check(reply)
        assert isinstance(values, list)
        word = values[0].decode() if isinstance(values[0], bytes) else ""
        if word == "EPOCH":
            _log.error("store_emptied: the store's functions are of another installation")
            raise emptied()
        if word == "CORRUPT":
            raise CorruptMemory("the memory's head or journal is damaged or missing; only erasing the memory is left")
        return Answer(word=word, values=values[1:])


def check(reply: Reply) -> Reply:
    """The reply, unless it is a refusal. Raises the HopeError that the refusal means."""
    if isinstance(reply, ReplyError):
        raise named(reply)
    return reply


def head_row(values: Sequence[Reply]) -> HeadRow:
    """The first six values of an answer about a head. Raises CorruptMemory."""
    try:
        version, tomb, num_bytes, updated_at, seal, mark = (as_bytes(value) for value in values[:6])
        return HeadRow(
            version=int(version),
            mark=mark.decode(errors="replace"),
            tomb=int(tomb),
            num_bytes=int(num_bytes),
            updated_at=float(updated_at),
            seal=seal,
        )
    except ValueError as error:
        raise CorruptMemory("the head of the memory is damaged; only erasing the memory is left") from error


def as_bytes(reply: Reply) -> bytes:
    """A value that may be absent."""
    return reply if isinstance(reply, bytes) else b""


def owner_keys(owner: str, *more: str) -> tuple[str, ...]:
    """The keys a function is given."""
    return (*layout.record(owner), *more)
