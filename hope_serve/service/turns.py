"""Whose turn it is to write: one writer of an owner at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hope_serve.api import Owner


class Turns:
    """A lock for each owner, which exists for as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[Owner, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, owner: Owner) -> AsyncIterator[None]:
        """Wait for this owner's turn and hold it."""
        lock, waiters = self._locks.get(owner, (asyncio.Lock(), 0))
        self._locks[owner] = (lock, waiters + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiters = self._locks.pop(owner)
            if waiters > 1:
                self._locks[owner] = (lock, waiters - 1)
