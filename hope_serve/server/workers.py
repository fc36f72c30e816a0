"""Threads for work that grows with a message, so that the event loop never waits for a long one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

INLINE_SIZE = 1024
"""Bytes, characters or ids up to which work is done at once: that is quicker than handing it over, 1 ms at most."""
LONG_SIZE = 2**16
"""Longer work is done one at a time: while a text is tokenised it takes some 360 bytes of memory a character."""
NUM_THREADS = 2
"""For work of middling size, which long work does not hold up."""
LONG_NICENESS = 10
"""Long work gives way to the engine's threads where there is no core for each: a step waits for its slowest thread."""


class Workers:
    """A few threads in front of which work waits in line; admission bounds what can wait."""

    def __init__(self) -> None:
        self._middling = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="hope-worker")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="hope-worker-long", initializer=_give_way)

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """What ``work`` returns; ``size`` is what it grows with, in bytes, characters or ids.

        It runs in the caller's context, wherever it runs: the call under way stays known.
        The interpreter changes threads every 5 ms, and long tokenising lets go of it altogether.
        """
        if size <= INLINE_SIZE:
            return work()
        threads = self._middling if size <= LONG_SIZE else self._long
        return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, work)

    def close(self) -> None:
        """Begin nothing new; what is under way ends by itself."""
        for threads in (self._middling, self._long):
            threads.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    """Lower the calling thread's priority, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LONG_NICENESS)
