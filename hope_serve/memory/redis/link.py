"""The road to the servers: a few commands on one connection, within a time of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Argument = bytes | str | int
Command = tuple[Argument, ...]


class ReplyError(Exception):
    """The server refused a command. ``code`` is the first word of its answer, such as ``OOM``."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


Reply = bytes | int | None | ReplyError | list["Reply"]


class Link(Protocol):
    """One server, or several that share the keys."""

    async def run(
        self, key: str, commands: Sequence[Command], *, then: Sequence[Command] = (), bulk: bool = False
    ) -> list[Reply]:
        """Run the commands, in order, on one connection to the server that holds ``key``.

        Args:
            key: every key of the commands is in its slot.
            then: further commands on the same connection, sent when the others have been answered.
            bulk: whether much is sent or read; such calls have connections and a time limit of their own.

        Raises:
            Unavailable: no connection, or no answer in time: the commands may have been carried out.
            Exhausted: too many calls are under way.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        ...


class Server(Protocol):
    """One server of a link."""

    async def ask(self, *command: Argument) -> Reply:
        """The reply to one command that may be repeated. Raises Unavailable."""
        ...
