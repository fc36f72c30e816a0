"""From the engine's thread to the event loop: who hears of a sequence there."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from hope_serve.api import TokenLogprob
from hope_serve.api.engine import Carried, ChoiceEnded, TokenDrawn
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.sequence import History, Sequence

Event = TokenDrawn | ChoiceEnded[Any] | BaseException


class Mail:
    """Calls from other threads that one event loop makes, in their order; however many wait, it is woken once.

    Waking an event loop is a system call, and a step of the engine has news for hundreds of calls.
    """

    _of: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Mail]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # it is kept for as long as its loop, which it must not keep
        self._calls: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._woken = False

    @classmethod
    def here(cls) -> Mail:
        """That of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in cls._of:
            cls._of[loop] = cls(loop)
        return cls._of[loop]

    def post(self, call: Callable[[Any], object], argument: Any) -> None:
        """Let the event loop make a call; it is lost if the loop is closed."""
        self._calls.append((call, argument))
        loop = None if self._woken else self._loop()
        if loop is not None and not loop.is_closed():
            self._woken = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # before the box is emptied: whoever posts from here on wakes the loop again
        calls = self._calls
        while calls:
            call, argument = calls.popleft()
            call(argument)


class ChoiceListener:
    """Turns what becomes of one choice into events of a queue."""

    def __init__(self, index: int, ends_text: Callable[[int], bool] | None, events: asyncio.Queue[Event]) -> None:
        self._index, self._ends_text, self._events = index, ends_text, events
        self._mail = Mail.here()

    def on_token(self, sequence: Sequence, drawn: TokenLogprob) -> bool:
        """Emit the token; True when the text ends with it."""
        is_end = drawn.token in sequence.end_ids
        wanted = sequence.sampling.logprobs is not None
        self._send(TokenDrawn(choice=self._index, token=drawn.token, is_end=is_end, logprob=drawn if wanted else None))
        return not is_end and self._ends_text is not None and self._ends_text(drawn.token)

    def on_end(self, sequence: Sequence) -> None:
        """Emit the end or the error; somebody who left hears nothing."""
        if sequence.error is not None:
            self._send(sequence.error)
        elif sequence.finish_reason is not None:
            self._send(
                ChoiceEnded(
                    choice=self._index,
                    reason=sequence.finish_reason,
                    num_prompt=sequence.num_prompt - sequence.num_reread,
                    num_reread=sequence.num_reread,
                    num_drawn=len(sequence.drawn),
                    timings=sequence.timings(),
                    carried=carried(sequence),
                )
            )

    def _send(self, event: Event) -> None:
        self._mail.post(self._events.put_nowait, event)


class Pending:
    """The listener of a sequence that answers all at once; ``outcome`` is done when it has left the engine.

    Nothing of it leads back to the sequence, whose memories would otherwise wait for a search for garbage.
    """

    def __init__(self) -> None:
        self._mail = Mail.here()
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_token(self, sequence: Sequence, drawn: TokenLogprob) -> bool:  # noqa: ARG002
        """These sequences draw nothing."""
        raise AssertionError("a lesson or a score does not draw")

    def on_end(self, sequence: Sequence) -> None:
        """Wake the caller."""
        self._mail.post(self._complete, sequence)

    async def finished(self, sequence: Sequence, engine: EngineLoop) -> Sequence:
        """Submit and wait. A caller that leaves early cancels the sequence within a step."""
        engine.submit(sequence)
        try:
            await self.outcome
            return sequence
        finally:
            if not sequence.done:
                sequence.cancelled = True
                engine.wake()

    def _complete(self, sequence: Sequence) -> None:
        error, sequence.error = sequence.error, None  # whoever raises it has the sequence among its variables
        if self.outcome.done():
            return
        if error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(None)


def carried(sequence: Sequence) -> Carried[Any] | None:
    """What a conversation goes on with. Its last token may have been fed already: a step is launched ahead."""
    if sequence.final_state is None:
        return None
    if isinstance(sequence.final_state, History):
        return Carried(state=sequence.final_state, consumed=len(sequence.tokens))
    fed = sequence.num_fed >= len(sequence.tokens)
    return Carried(state=sequence.final_state, consumed=sequence.consumed, unfed=None if fed else sequence.tokens[-1])
