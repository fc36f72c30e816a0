"""How much may be under way. gRPC's own limit would refuse health checks as well; this one does not see them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hope_serve.errors import Exhausted, Unavailable

MOST_OF_ONE = 0.75
"""Of what may be under way, for one of several tenants."""


@dataclass
class _Held:
    """What one tenant has under way."""

    calls: int = 0
    num_bytes: int = 0

    def add(self, calls: int, num_bytes: int) -> None:
        """More, or less."""
        self.calls += calls
        self.num_bytes += num_bytes


class Admission:
    """Counts the calls in flight and the bytes that they brought, bounds both, and closes the door for draining.

    A call's memory is a multiple of its message until it ends, so a bound of the messages bounds the process. Where
    callers are of several tenants, a part of both bounds is out of reach for whoever has most of the rest.

    Args:
        shared: whether callers may be of several tenants.
    """

    def __init__(self, max_concurrent_calls: int, max_bytes: int, *, shared: bool = False) -> None:
        self._limit, self._max_bytes = max_concurrent_calls, max_bytes
        self._most = MOST_OF_ONE if shared else 1.0
        self._tenants: dict[str, _Held] = {}
        self._in_flight = self._num_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self._last_call = 0.0

    @contextmanager
    def enter(self, num_bytes: int = 0, tenant: str = "") -> Iterator[None]:
        """One call, whose message has ``num_bytes``.

        Raises:
            Unavailable: the server is draining.
            Exhausted: as many calls or bytes as allowed are under way, or of the tenant alone.
        """
        self._last_call = time.monotonic()
        if self.draining:
            raise Unavailable(
                "the server is draining; try another one, or this one after its restart", reason="DRAINING"
            )
        if self._in_flight >= self._limit:
            raise Exhausted(
                f"{self._in_flight} calls are under way, of max_concurrent_calls {self._limit}; try again later",
                reason="CONCURRENCY",
            )
        if self._num_bytes + num_bytes > self._max_bytes:
            raise Exhausted(
                f"messages of {self._num_bytes} bytes are under way, and {num_bytes} more would pass the limit of "
                f"{self._max_bytes}; try again later, or send less at once",
                reason="CONCURRENCY",
            )
        held = self._tenants.get(tenant) or _Held()
        self._check_part(held, num_bytes)
        self._tenants[tenant] = held
        held.add(1, num_bytes)
        self._in_flight += 1
        self._num_bytes += num_bytes
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            self._num_bytes -= num_bytes
            held.add(-1, -num_bytes)
            if not held.calls:
                self._tenants.pop(tenant, None)
            if not self._in_flight:
                self._idle.set()

    def _check_part(self, held: _Held, num_bytes: int) -> None:
        """One call of any size is always a tenant's own."""
        if not held.calls:
            return
        calls, size = int(self._most * self._limit), int(self._most * self._max_bytes)
        if held.calls >= calls or held.num_bytes + num_bytes > size:
            raise Exhausted(
                f"{held.calls} calls of {held.num_bytes} bytes are under way for the tenant, which may have {calls} of "
                f"{size} bytes at a time; try again later, or send less at once",
                reason="CONCURRENCY",
            )

    def close(self) -> None:
        """Refuse new calls from now on."""
        self.draining = True
        self._last_call = time.monotonic()

    async def drain(self) -> None:
        """Wait for the calls under way."""
        await self._idle.wait()

    async def quiet(self, seconds: float) -> None:
        """Wait until nobody has called for so long, be it in vain."""
        rest = seconds
        while rest > 0:
            await asyncio.sleep(rest)
            rest = self._last_call + seconds - time.monotonic()
