"""Threads for work that grows with a message, so that the event loop never waits for a long one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

NUM_THREADS = 2
INLINE_SIZE = 1024
"""Bytes, characters or ids up to which work is done at once: that is quicker than handing it over, some 1 ms at most."""


class Workers:
    """A few threads in front of which work waits in line; admission bounds how many calls can wait."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="hope-worker")

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """What ``work`` returns; ``size`` is what it grows with, in bytes, characters or ids.

        It runs in the caller's context, wherever it runs: the call under way stays known.
        The interpreter changes threads every 5 ms, and long tokenising lets go of it altogether.
        """
        if size <= INLINE_SIZE:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)

    def close(self) -> None:
        """Begin nothing new; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
