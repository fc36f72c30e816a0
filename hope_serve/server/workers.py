"""Threads for work that grows with a message, so that the event loop never waits for a long one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from hope_serve.engine.fairness import FairQueue
from hope_serve.server.owners import VISIT

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
    """A few threads in front of which work waits; tenants take turns at them. Admission bounds what can wait."""

    def __init__(self) -> None:
        self._middling = _Line(ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="hope-worker"), NUM_THREADS)
        self._long = _Line(
            ThreadPoolExecutor(1, thread_name_prefix="hope-worker-long", initializer=_give_way), num_threads=1
        )

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """What ``work`` returns; ``size`` is what it grows with, in bytes, characters or ids.

        It runs in the caller's context, wherever it runs: the call under way stays known.
        The interpreter changes threads every ``SWITCH_SECONDS``, and long tokenising lets go of it altogether.
        """
        if size <= INLINE_SIZE:
            return work()
        line = self._middling if size <= LONG_SIZE else self._long
        return cast(T, await line.run(size, work))

    def close(self) -> None:
        """Begin nothing new; what is under way ends by itself."""
        for line in (self._middling, self._long):
            line.close()


@dataclass(frozen=True, eq=False)
class _Job:
    """Work that waits, and whoever waits for it."""

    work: Callable[[], Any]
    done: asyncio.Future[Any]


class _Line:
    """Work for some threads, in a line where tenants take turns. Lives on the event loop."""

    def __init__(self, threads: ThreadPoolExecutor, num_threads: int) -> None:
        self._threads, self._num_free = threads, num_threads
        self._closed = False
        self._waiting: FairQueue[_Job] = FairQueue()

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """Wait for a turn, and then for the work. Who leaves early gives up a turn that has not come."""
        context = copy_context()
        job = _Job(work=lambda: context.run(work), done=asyncio.get_running_loop().create_future())
        visit = VISIT.get(None)
        self._waiting.push(job, tenant=visit.caller.tenant if visit else "", user="", cost=size)
        self._begin()
        try:
            return cast(T, await job.done)
        finally:
            self._waiting.remove(job)

    def close(self) -> None:
        """Nobody's turn comes any more."""
        self._closed = True
        while self._waiting:
            self._waiting.pop().done.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        while self._num_free and self._waiting and not self._closed:
            job = self._waiting.pop()
            self._num_free -= 1
            ended = asyncio.get_running_loop().run_in_executor(self._threads, job.work)
            ended.add_done_callback(partial(self._ended, job))

    def _ended(self, job: _Job, ended: asyncio.Future[Any]) -> None:
        self._num_free += 1
        error = None if ended.cancelled() else ended.exception()
        if not job.done.done():
            if ended.cancelled():
                job.done.cancel()
            elif error:
                job.done.set_exception(error)
            else:
                job.done.set_result(ended.result())
        self._begin()


def _give_way() -> None:
    """Lower the calling thread's priority, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LONG_NICENESS)
