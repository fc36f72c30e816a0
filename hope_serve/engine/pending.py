"""Awaits a sequence that answers all at once: a lesson, or a score."""

from __future__ import annotations

import asyncio

from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.sequence import Sampled, Sequence


class Pending:
    """The listener of one sequence; ``finished`` completes when it has left the engine."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Sequence] = self._loop.create_future()

    def on_token(self, sequence: Sequence, sampled: Sampled) -> bool:  # noqa: ARG002
        """These sequences generate nothing."""
        raise AssertionError("a lesson or a score does not generate")

    def on_end(self, sequence: Sequence) -> None:
        """Wake the caller."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._complete, sequence)

    async def finished(self, sequence: Sequence, engine: EngineLoop) -> Sequence:
        """Submit and wait. A caller that leaves early cancels the sequence within a step."""
        engine.submit(sequence)
        try:
            return await self._done
        finally:
            if not sequence.done:
                sequence.cancelled = True
                engine.wake()

    def _complete(self, sequence: Sequence) -> None:
        if self._done.done():
            return
        if sequence.error is not None:
            self._done.set_exception(sequence.error)
        else:
            self._done.set_result(sequence)
