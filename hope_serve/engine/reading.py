"""What engines of sequences have in common: tasks become sequences of one thread's loop, and its events replies."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterable
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from hope_serve.api import ScoreResult
from hope_serve.api.engine import ChoiceEnded, Events, GenerateTask, Purpose, ScoreTask, TokenDrawn
from hope_serve.engine.draws import row_key
from hope_serve.engine.listeners import ChoiceListener, Event, Pending
from hope_serve.engine.loop import EngineLoop
from hope_serve.engine.sequence import History, Sequence, Start

STUCK_SECONDS = 300.0
WATCH_SECONDS = 0.5
"""Between two looks whether the thread came round."""


class SequenceEngine:
    """The part of ``api.engine.Engine`` that reads: whatever computes the loop's steps.

    Args:
        loop: started and stopped with this.
        stuck_seconds: a loop that is in one step for so long is given up.
        shares_openings: continuations of one prompt go on from what it left behind; else each reads it for itself.
    """

    def __init__(self, loop: EngineLoop, *, stuck_seconds: float = STUCK_SECONDS, shares_openings: bool = True) -> None:
        self._loop, self._stuck_seconds, self._shares_openings = loop, stuck_seconds, shares_openings
        self._ended = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    @property
    def failure(self) -> BaseException | None:
        """See ``Engine.failure``."""
        return self._loop.failure

    async def ended(self) -> None:
        """See ``Engine.ended``."""
        await self._ended.wait()

    def seconds_since_step(self) -> float:
        """See ``Engine.seconds_since_step``."""
        return self._loop.seconds_since_step

    async def start(self) -> None:
        """See ``Engine.start``."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._ended.set)

        await asyncio.to_thread(self._loop.start, tell)
        self._watch = loop.create_task(self._give_up_when_stuck(), name="engine-watch")

    async def close(self) -> None:
        """See ``Engine.close``."""
        if self._watch:
            self._watch.cancel()
        await asyncio.to_thread(self._loop.stop)

    async def generate(self, task: GenerateTask[Tensor, Any]) -> AsyncGenerator[Events[Any]]:
        """See ``Engine.generate``."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        seed = secrets.randbits(64) if task.sampling.seed is None else task.sampling.seed
        sequences = [_choice(task, index, seed, events) for index in range(task.sampling.n)]
        sequences[0].forks = sequences[1:]
        self._loop.submit(sequences[0])
        left = len(sequences)
        try:
            while left:
                came, error = _all_of(await events.get(), events)
                left -= sum(isinstance(event, ChoiceEnded) for event in came)
                if came:
                    yield came
                if error is not None:
                    raise error
        finally:
            if left:
                for sequence in sequences:
                    sequence.cancelled = True
                self._loop.wake()

    async def score(self, task: ScoreTask[Tensor]) -> tuple[ScoreResult, ...]:
        """See ``Engine.score``. Every continuation begins with the prompt's last token, unread so far."""
        *opening, last = task.prompt
        start = Start(memory=task.memory)
        if self._shares_openings and opening and len(task.continuations) > 1:
            read = await self._finished(_scoring(task, opening, start, keeps_state=True))
            start, opening = replace(start, state=read.final_state, consumed=len(opening)), []
        texts = await asyncio.to_thread(_texts, [*opening, last], task.continuations)  # as long as a message may be
        score_from = len(opening)
        sequences = (_scoring(task, fed, start, targets=targets, score_from=score_from) for fed, targets in texts)
        return tuple(map(_weighed, await self._all_finished(sequences)))

    async def _give_up_when_stuck(self) -> None:
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, self._stuck_seconds))
            if self._loop.seconds_since_step > self._stuck_seconds:
                self._loop.give_up()
                return

    async def _finished(self, sequence: Sequence) -> Sequence:
        assert isinstance(sequence.listener, Pending)
        return await sequence.listener.finished(sequence, self._loop)

    async def _all_finished(self, sequences: Iterable[Sequence]) -> list[Sequence]:
        """What became of all of them; when one is refused, those before it are given up, and none behind it is begun.

        No task for each: an error that knows them keeps every one, with its tokens, until the whole process is
        searched for garbage, and the event loop stands still meanwhile.
        """
        submitted: list[Sequence] = []
        try:
            for sequence in sequences:
                self._loop.submit(sequence)
                submitted.append(sequence)
            await asyncio.gather(*map(_outcome, submitted))
            return list(submitted)
        finally:
            self._give_up([sequence for sequence in submitted if not sequence.done])
            submitted.clear()

    def _give_up(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            sequence.cancelled = True
            _outcome(sequence).cancel()
        if sequences:
            self._loop.wake()


def _all_of(first: Event, events: asyncio.Queue[Event]) -> tuple[Events[Any], BaseException | None]:
    """The first event and those that wait behind it, up to an error."""
    came: list[TokenDrawn | ChoiceEnded[Any]] = []
    event = first
    while not isinstance(event, BaseException):
        came.append(event)
        if events.empty():
            return came, None
        event = events.get_nowait()
    return came, event


def _choice(task: GenerateTask[Tensor, Any], index: int, seed: int, events: asyncio.Queue[Event]) -> Sequence:
    begins = _beginning(task)
    return Sequence(
        purpose=Purpose.GENERATE,
        tokens=[*begins.tokens, *task.prompt],
        num_reread=begins.num_reread,
        listener=ChoiceListener(index, task.ends_text[index] if task.ends_text else None, events),
        start=begins.start,
        sampling=task.sampling,
        draw_key=row_key(seed, index),
        end_ids=task.end_ids,
        priority=task.priority,
        deadline=task.deadline,
        keeps_state=task.keeps_state,
        owner=task.owner,
        payer=task.payer,
    )


class _Beginning(NamedTuple):
    start: Start
    tokens: list[int]
    num_reread: int = 0


def _beginning(task: GenerateTask[Tensor, Any]) -> _Beginning:
    """Where a conversation goes on: in its state, or with all its tokens from the start."""
    carried = task.carried
    if carried is None:
        return _Beginning(Start(memory=task.memory), [])
    if isinstance(carried.state, History):
        return _Beginning(Start(memory=task.memory), list(carried.state.tokens), len(carried.state.tokens))
    unfed = [] if carried.unfed is None else [carried.unfed]
    return _Beginning(Start(memory=task.memory, state=carried.state, consumed=carried.consumed), unfed)


def _scoring(task: ScoreTask[Tensor], tokens: list[int], start: Start, **options: Any) -> Sequence:
    return Sequence(
        purpose=Purpose.SCORE,
        tokens=tokens,
        listener=Pending(),
        start=start,
        priority=task.priority,
        deadline=task.deadline,
        owner=task.owner,
        payer=task.payer,
        **options,
    )


def _texts(opening: list[int], continuations: Seq[tuple[int, ...]]) -> list[tuple[list[int], list[int]]]:
    """What is fed for each continuation, and the successor of every token of it."""
    return [([*opening, *ids[:-1]], [*opening[1:], *ids]) for ids in continuations]


def _outcome(sequence: Sequence) -> asyncio.Future[None]:
    assert isinstance(sequence.listener, Pending)
    return sequence.listener.outcome


def _weighed(sequence: Sequence) -> ScoreResult:
    return ScoreResult(
        logprob=sum(sequence.token_logprobs),
        token_logprobs=tuple(sequence.token_logprobs),
        is_greedy=all(sequence.greedy_hits),
    )
