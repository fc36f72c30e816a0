"""What a ``redis://`` URL says."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

from hope_serve.api import Durability
from hope_serve.errors import InvalidRequest
from hope_serve.memory.url_parts import split_url

DEFAULT_PORT = 6379
Host = tuple[str, int]


class Mode(enum.Enum):
    """How the servers stand to each other."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the store is and who we are there.

    Args:
        hosts: the server; or sentinels, or servers of a cluster, of which any that answers will do.
        master: name of the primary among the sentinels.
        certificate: path of the authority's certificate for TLS; "" for the system's.
        durability: where a commit must be safe before it is acknowledged.
    """

    hosts: tuple[Host, ...]
    mode: Mode = Mode.SINGLE
    master: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    certificate: str = ""
    durability: Durability = Durability.LOCAL_FSYNC


def parse_address(url: str) -> Address:
    """Read ``redis[s]://[user:password@]host[:port][,host…][/database][?cluster=1|sentinel=NAME&durability=…&ca=PATH]``.

    Raises:
        InvalidRequest: naming the part that is wrong.
    """
    parts = split_url(url)
    username, _, password = parts.credential.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    master, cluster = options.pop("sentinel", ""), options.pop("cluster", "")
    durability = options.pop("durability", Durability.LOCAL_FSYNC.value)
    certificate = options.pop("ca", "")
    if options or parts.fragment:
        raise _wrong(f"{', '.join(options) or parts.fragment} is not known; sentinel, cluster, durability and ca are")
    if master and cluster:
        raise _wrong("sentinel and cluster are both given; give one")
    if durability not in (levels := [level.value for level in Durability]):
        raise _wrong(f"durability {durability!r} is not one of {', '.join(levels)}")
    mode = Mode.SENTINEL if master else Mode.CLUSTER if cluster not in ("", "0") else Mode.SINGLE
    listed = tuple(_host(host) for host in parts.hosts.split(","))
    if mode is Mode.SINGLE and len(listed) > 1:
        raise _wrong("several hosts are given; add sentinel=NAME or cluster=1")
    return Address(
        hosts=listed,
        mode=mode,
        master=master,
        database=_database(parts.path, mode),
        username=unquote(username),
        password=unquote(password),
        tls=parts.scheme == "rediss",
        certificate=certificate,
        durability=Durability(durability),
    )


def _host(text: str) -> Host:
    name, _, port = text.rpartition(":") if ":" in text and not text.endswith("]") else (text, "", "")
    if not name or (port and not port.isdecimal()) or int(port or 1) not in range(1, 65536):
        raise _wrong(f"{text!r} is not host or host:port")
    return name.strip("[]"), int(port or DEFAULT_PORT)


def _database(path: str, mode: Mode) -> int:
    name = path.strip("/")
    if name and (not name.isdecimal() or (mode is Mode.CLUSTER and int(name) != 0)):
        raise _wrong(f"database {name!r} is not a number, or not 0 in a cluster")
    return int(name or 0)


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest("memory", f"in the redis URL {message}")
