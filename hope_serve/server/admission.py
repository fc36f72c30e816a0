"""How much may be under way. gRPC's own limit would refuse health checks as well; this one does not see them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hope_serve.errors import Exhausted, Unavailable


class Admission:
    """Counts the calls in flight and the bytes that they brought, bounds both, and closes the door for draining.

    A call's memory is a multiple of its message until it ends, so a bound of the messages bounds the process.
    """

    def __init__(self, max_concurrent_calls: int, max_bytes: int) -> None:
        self._limit, self._max_bytes = max_concurrent_calls, max_bytes
        self._in_flight = self._num_bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        self._last_call = 0.0

    @contextmanager
    def enter(self, num_bytes: int = 0) -> Iterator[None]:
        """One call, whose message has ``num_bytes``.

        Raises:
            Unavailable: the server is draining.
            Exhausted: as many calls or bytes as allowed are under way.
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
        self._in_flight += 1
        self._num_bytes += num_bytes
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            self._num_bytes -= num_bytes
            if not self._in_flight:
                self._idle.set()

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
