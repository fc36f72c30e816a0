"""The function library: its text, its epoch, and how it is installed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources

from hope_serve.errors import FailedPrecondition
from hope_serve.memory.redis.calls import as_bytes
from hope_serve.memory.redis.errors import EMPTIED, named
from hope_serve.memory.redis.link import ReplyError, Server

LIBRARY_FORMAT = b"2"
LIBRARY_REVISION = 2
"""One more with every change of the functions. Pods of a format work with the functions of every later revision."""
_EPOCH_MARK = "@EPOCH@"


def library_text(epoch: str) -> str:
    """The library with the epoch of one installation in it."""
    folder = resources.files(__package__).joinpath("lua")
    parts = sorted((part for part in folder.iterdir() if part.name.endswith(".lua")), key=lambda part: part.name)
    return "\n".join(part.read_text(encoding="utf-8") for part in parts).replace(_EPOCH_MARK, epoch)


async def read_epoch(server: Server) -> str:
    """The epoch of the installed library.

    Raises:
        Unavailable: no library is installed, or the server does not answer.
        FailedPrecondition: another format of it is.
    """
    reply = await server.ask("FCALL_RO", "hs_info", 0)
    if isinstance(reply, ReplyError):
        raise named(reply)
    assert isinstance(reply, list)
    found, epoch, *rest = reply
    if found != LIBRARY_FORMAT:
        raise FailedPrecondition(
            f"the store's functions have format {found!r}, and this program knows {LIBRARY_FORMAT!r}; run the version "
            "that installed them, or install those of this one with `hope-serve memory install-functions`"
        )
    revision = int(as_bytes(rest[0])) if rest else 1
    if revision < LIBRARY_REVISION:
        raise FailedPrecondition(
            f"the store's functions are of revision {revision}, older than the {LIBRARY_REVISION} that this program "
            "needs; run `hope-serve memory install-functions` with this release first: it changes no memory, and pods "
            "of the former release go on meanwhile",
            reason="STORE_FUNCTIONS",
        )
    assert isinstance(epoch, bytes)
    return epoch.decode()


async def install(servers: Sequence[Server]) -> str:
    """Load the library on every server; an epoch that is installed already stays. Returns the epoch.

    Raises:
        FailedPrecondition: the credential may not load functions, or the servers disagree about the epoch.
        Unavailable: a server does not answer.
    """
    epochs = {epoch for server in servers if (epoch := await _installed_epoch(server))}
    if len(epochs) > 1:
        raise FailedPrecondition(
            f"the servers have functions of several installations ({', '.join(sorted(epochs))}); they do not belong "
            "together: remove the library from those that are new"
        )
    epoch = epochs.pop() if epochs else os.urandom(8).hex()
    for server in servers:
        reply = await server.ask("FUNCTION", "LOAD", "REPLACE", library_text(epoch))
        if isinstance(reply, ReplyError):
            raise named(reply)
    return epoch


async def _installed_epoch(server: Server) -> str | None:
    reply = await server.ask("FCALL_RO", "hs_info", 0)
    if isinstance(reply, ReplyError):
        error = named(reply)
        if error.reason == EMPTIED:
            return None
        raise error
    assert isinstance(reply, list)
    assert isinstance(reply[1], bytes)
    return reply[1].decode()
