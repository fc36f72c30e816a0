"""Learning from finished exchanges, off the critical path: bounded, retried, counted, awaited when draining."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hope_serve.api import AdaptRequest
from hope_serve.errors import Exhausted, HopeError, Unavailable
from hope_serve.server.allowances import Allowances
from hope_serve.server.owners import current_caller
from hope_serve.server.rationed import lesson_demand

if TYPE_CHECKING:
    from hope_serve.service import Service

MAX_ATTEMPTS = 8
MAX_PAUSE_SECONDS = 10.0

log = logging.getLogger(__name__)


class Learner:
    """Runs adaptations that no caller waits for. Their outcome shows in ListVersions, the log and the metrics."""

    def __init__(self, service: Service, allowances: Allowances, *, limit: int) -> None:
        self._service = service
        self._allowances = allowances
        self._limit = limit
        self._reserved = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def share(self) -> float:
        """Places taken, as a share of ``limit``."""
        return (self._reserved + len(self._tasks)) / self._limit

    def reserve(self, user: str) -> None:
        """Keep a place, before the answer is begun, for what ``start`` or ``release`` will end.

        Raises:
            Exhausted: ``limit`` adaptations are waiting already, or the caller's allowance for learning is used up.
        """
        self._allowances.check_learning(current_caller(), user)
        if self._reserved + len(self._tasks) >= self._limit:
            raise Exhausted(
                f"{self._limit} exchanges wait to be learned, as many as max_background_learning allows; "
                "try again later, or without learn",
                reason="LEARNING_BACKLOG",
            )
        self._reserved += 1

    def release(self) -> None:
        """Give a place back."""
        self._reserved -= 1

    def start(self, request: AdaptRequest) -> None:
        """Turn a place into the adaptation that it was kept for."""
        self.release()
        task = asyncio.get_running_loop().create_task(self._learn(request), name="learn")
        self._tasks.add(task)
        task.add_done_callback(self._settle)

    async def drain(self) -> None:
        """Wait for every adaptation that was started."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cancel(self) -> None:
        """Give the remaining ones up; nothing of them was acknowledged."""
        for task in self._tasks:
            task.cancel()

    async def _learn(self, request: AdaptRequest) -> None:
        """Adapt; the request id makes every repetition safe."""
        caller, demand = current_caller(), lesson_demand(request)  # the caller's task began this one
        for attempt in range(MAX_ATTEMPTS):
            try:
                with self._allowances.entered(caller, request.owner.user, demand, checked=False):
                    await self._service.adapt(request)
            except (Exhausted, Unavailable) as error:
                if attempt == MAX_ATTEMPTS - 1:
                    raise
                pause = error.retry_after if isinstance(error, Exhausted) else 0.25 * 2**attempt
                await asyncio.sleep(min(pause, MAX_PAUSE_SECONDS))
            else:
                return

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error:
            log.warning("an exchange was not learned: %s", error or "the server stopped", exc_info=_bug(error))


def _bug(error: BaseException | None) -> BaseException | None:
    return None if isinstance(error, HopeError) else error
