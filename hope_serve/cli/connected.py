"""A client for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hope_serve.client import HopeClient

TIMEOUT_SECONDS = 30.0


@contextmanager
def connected(target: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[HopeClient]:
    """A client of the server; grpc is loaded only now."""
    from hope_serve.client import HopeClient
    from hope_serve.client.channel import ChannelOptions

    with HopeClient(target, ChannelOptions(timeout_seconds=timeout_seconds)) as client:
        yield client
