"""What a server's refusal means for the caller."""

from __future__ import annotations

import re

from hope_serve.errors import CorruptMemory, Exhausted, FailedPrecondition, HopeError, Unavailable
from hope_serve.memory.redis.link import ReplyError

EMPTIED = "STORE_EMPTY"
NOT_DURABLE = "NOT_DURABLE"
_NOT_ALLOWED = ("NOAUTH", "WRONGPASS", "NOPERM")


def named(error: ReplyError) -> HopeError:
    """The project's error for a server's."""
    text = str(error)
    if error.code == "OOM":
        return Exhausted(f"the store is out of memory ({text}); raise maxmemory or erase memories", reason="STORE_FULL")
    if "unction not found" in text:
        return emptied()
    if "WRONGTYPE" in text:
        return CorruptMemory(f"a key of the memory holds something else ({text})")
    if error.code in _NOT_ALLOWED or "ACL failure" in text or "can't run this command" in text:
        return FailedPrecondition(f"the store refuses this credential ({text}); {_remedy(text)}")
    return Unavailable(f"the store cannot do it now ({text}); try again with the same request id")


def _remedy(text: str) -> str:
    """What to tell the server, so that it lets the credential in."""
    everything = "deploy/README.md lists all that it needs"
    if missing := re.search(r"run the '([\w|-]+)' command", text):
        return f"allow it with `ACL SETUSER <user> +{missing[1]}`; {everything}"
    return f"check user and password; {everything}"


def emptied() -> Unavailable:
    """The functions are gone, or others were installed: the memories are not those that were there."""
    return Unavailable(
        "the store came back empty or was installed anew; restore it, or run `hope-serve memory install-functions` "
        "and restart the servers to begin anew",
        reason=EMPTIED,
    )
