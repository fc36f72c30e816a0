"""The store's time: one clock for all pods, whatever their own ones say."""

from __future__ import annotations

import time

from hope_serve.memory.backend import Backend


class StoreClock:
    """Unix seconds: this machine's clock, set right by the database's whenever that was asked.

    Args:
        backend: has a clock, or is on this machine.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.skew = 0.0
        """Seconds that the database's clock is ahead of this machine's."""

    def __call__(self) -> float:
        """The time now."""
        return time.time() + self.skew

    async def set_right(self) -> None:
        """Ask the database. Raises Unavailable."""
        before = time.time()
        there = await self._backend.now()
        if there is not None:
            self.skew = there - (before + time.time()) / 2
