"""Where a server listens: every address that the name stands for, or none.

gRPC is content with any one of them. A name such as localhost stands for two, and a server that got only the second
leaves the first to a stranger, who is asked by everybody that tries it first.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hope_serve.config import ConfigError, parse_address

_NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_TRIES = 16


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An address and a port that were free a moment ago."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class _Address:
    family: socket.AddressFamily
    place: tuple[Any, ...]

    @property
    def host(self) -> str:
        return socket.getnameinfo(self.place, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


async def free_endpoints(listen: str, key: str) -> tuple[Endpoint, ...]:
    """The addresses of this machine that ``host:port`` stands for, all on one port; port 0 is any that all have free.

    Args:
        key: of the configuration, for the error.

    Raises:
        ConfigError: nobody knows the name, this machine has none of its addresses, or one of them is taken.
    """
    host, port = parse_address(listen, key)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise _refusal(f"{key} {listen}", str(getattr(error, "strerror", error))) from error
    addresses = tuple(dict.fromkeys(_Address(family, place) for family, *_, place in found))
    endpoints = _free(f"{key} {listen}", addresses, port)
    if not endpoints:
        raise _refusal(f"{key} {listen}", "no address of this machine")
    return endpoints


def _free(wanted: str, addresses: Sequence[_Address], port: int) -> tuple[Endpoint, ...]:
    for left in reversed(range(_TRIES)):
        try:
            return _probe(addresses, port)
        except _Taken as error:
            if port or not left:
                raise _refusal(wanted, str(error)) from error
    raise AssertionError("the last try returns or raises")


class _Taken(Exception):
    """Which address, and why."""


def _probe(addresses: Sequence[_Address], port: int) -> tuple[Endpoint, ...]:
    """Bind them all at once, without listening, and let go. Raises _Taken."""
    endpoints: list[Endpoint] = []
    with ExitStack() as held:
        for address in addresses:
            try:
                bound = held.enter_context(socket.socket(address.family, socket.SOCK_STREAM))
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if address.family is socket.AF_INET6 and address.host != "::":
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((address.place[0], port, *address.place[2:]))
            except OSError as error:
                if error.errno in _NOT_OURS:
                    continue
                raise _Taken(f"{address.host}: {error.strerror}") from error
            port = bound.getsockname()[1]
            endpoints.append(Endpoint(host=address.host, port=port))
    return tuple(endpoints)


def _refusal(wanted: str, why: str) -> ConfigError:
    return ConfigError(f"{wanted} cannot be bound ({why}); stop what listens there or choose another port")
