"""What the serving user may do, and what the one who installs the functions may."""

from __future__ import annotations

# Commands inside a function are checked against the caller's rules too, so those the functions use stand here as well.
SERVING_COMMANDS = (
    "fcall",
    "fcall_ro",
    "hget",
    "hmget",
    "hgetall",
    "hset",
    "hdel",
    "hlen",
    "hexists",
    "hkeys",
    "get",
    "set",
    "unlink",
    "persist",
    "pexpire",
    "exists",
    "zadd",
    "zrangebylex",
    "waitaof",
    "publish",
    "subscribe",
    "unsubscribe",
    "ping",
    "time",
    "info",
    "config|get",
    "cluster|slots",
    "select",
)
INSTALLING_COMMANDS = ("function|load", "fcall_ro", "info", "cluster|slots", "select", "set", "get")


def acl_rules(*, installer: bool = False, without: frozenset[str] = frozenset()) -> list[str]:
    """Rules for ``ACL SETUSER name on >password …``: keys and channels of the store, and these commands alone.

    Args:
        installer: for the credential of ``hope-serve memory install-functions``; the serving user must not have it.
        without: commands that the server does not know, such as ``waitaof`` before 7.2.
    """
    commands = INSTALLING_COMMANDS if installer else SERVING_COMMANDS
    allowed = [f"+{command}" for command in commands if command not in without]
    return ["resetkeys", "~hs:*", "resetchannels", "&hs:*", "-@all", *allowed]
