"""One step: plan, load, run, reply; and what becomes of a sequence when it fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hope_serve.api import FinishReason, TokenLogprob
from hope_serve.api.engine import EngineFault, Purpose
from hope_serve.engine.meter import Meter
from hope_serve.engine.pools import Pools
from hope_serve.engine.runner import Outcome, Runner
from hope_serve.engine.scheduler import Plan, Scheduler
from hope_serve.engine.sequence import Sequence
from hope_serve.engine.teaching import Teaching
from hope_serve.errors import DeadlineExceeded, HopeError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Device:
    """What the thread makes when it begins, and nobody else touches.

    looks_ahead: a step is launched before the one before it was heard of.
    """

    pools: Pools
    runner: Runner
    teaching: Teaching
    looks_ahead: bool


@dataclass(frozen=True)
class _Launched:
    """A step on the device, of which nobody has heard yet."""

    plan: Plan = field(default_factory=Plan)
    outcomes: list[Outcome] = field(default_factory=list)
    scores: list[Sequence] = field(default_factory=list)


class Stepper:
    """Takes the scheduler's sequences through the device, step by step.

    A fault in the work for one sequence ends that sequence. When a step fails that several share, each of them is
    read again from its start and from then on runs alone, so that whose fault it was ends alone.
    """

    def __init__(self, scheduler: Scheduler, device: Device, meter: Meter) -> None:
        self._scheduler, self._meter = scheduler, meter
        self._pools, self._runner, self._teaching = device.pools, device.runner, device.teaching
        self._looks_ahead = device.looks_ahead
        self._ahead = _Launched()

    def step(self) -> None:
        """Compute what is next for everybody, if anything is."""
        self._drop_expired(time.monotonic())
        plan = self._plan()
        if plan.num_tokens:
            self._run(plan)
        elif self._ahead.outcomes:
            self._hear(_Launched())
        self._meter.show()

    def _plan(self) -> Plan:
        self._give_way()
        for sequence in self._scheduler.start(self._pools.table.num_free):
            sequence.started_at = sequence.started_at or time.monotonic()
            with self._ending(sequence):
                self._load(sequence)
        return self._scheduler.plan()

    def _give_way(self) -> None:
        """Take slots from who holds too many; those sequences go on later from where they are."""
        for sequence in self._scheduler.giving_way(self._pools.table.num_free):
            self._hear(_Launched())
            if not sequence.done:
                self._pools.put_aside(sequence)
                self._scheduler.put_back(sequence)

    def _load(self, sequence: Sequence) -> None:
        """Give a starting sequence its slots."""
        if sequence.lesson:
            self._teaching.begin(sequence.lesson)
        else:
            self._pools.take(sequence)

    def _run(self, plan: Plan) -> None:
        """Launch a step, hear of the one before it while the device works, and let the lessons go on."""
        began = time.monotonic()
        num_tokens = plan.num_tokens
        self._meter.count(plan)
        launched = self._launch(plan)
        heard = self._hear(launched)
        read = time.monotonic()
        self._teach(plan.lessons)
        ended = time.monotonic()
        learning = ended - read if plan.lessons else 0.0
        self._scheduler.measured(heard.plan, reading=read - began, learning=learning, num_lessons=len(plan.lessons))
        self._meter.observe(num_tokens, ended - began)

    def _launch(self, plan: Plan) -> _Launched:
        launched = _Launched(plan)
        for group in self._runner.groups(plan):
            try:
                launched.outcomes.append(self._runner.run(group))
            except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
                self._separate(group.sequences, error)
        launched.scores.extend(
            p.sequence for p in plan.pieces if p.sequence.purpose is Purpose.SCORE and not p.sequence.num_unfed
        )
        return launched

    def _hear(self, launched: _Launched) -> _Launched:
        """Reply to the step before; or, where nothing is launched ahead, to this one. Returns the one it was."""
        heard, self._ahead = (self._ahead, launched) if self._looks_ahead else (launched, _Launched())
        for outcome in heard.outcomes:
            for scored in outcome.scored:
                if not scored.sequence.done:
                    with self._ending(scored.sequence):
                        scored.note()
            if outcome.drawn:
                self._reply(outcome.drawn.tokens())
        for sequence in heard.scores:
            self._finish(sequence)
        return heard

    def _reply(self, tokens: list[tuple[Sequence, TokenLogprob | None]]) -> None:
        """Add everybody's token. It runs once a sequence and step, so that every call in it counts."""
        now, num_drawn = time.monotonic(), 0
        for sequence, drawn in tokens:
            if sequence.done:
                continue
            if sequence.forks:
                self._let_forks_run(sequence)
            sequence.prefilled_at = sequence.prefilled_at or now
            try:
                if drawn is None:
                    raise FloatingPointError("the model's logits are not numbers")
                num_drawn += 1
                self._extend(sequence, drawn)
            except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
                self._fail(sequence, error)
        self._meter.wrote(num_drawn)

    def _let_forks_run(self, sequence: Sequence) -> None:
        forks, sequence.forks = sequence.forks, []
        self._scheduler.running += forks

    def _extend(self, sequence: Sequence, drawn: TokenLogprob) -> None:
        """Add a token, and see whether the sequence ends with it."""
        sequence.drawn.append(drawn)
        sequence.tokens.append(drawn.token)
        self._scheduler.wrote(sequence)
        if sequence.listener.on_token(sequence, drawn) or drawn.token in sequence.end_ids:
            self._finish(sequence, reason=FinishReason.STOP)
        elif len(sequence.drawn) >= sequence.sampling.max_tokens:
            self._finish(sequence, reason=FinishReason.LENGTH)

    def _teach(self, sequences: list[Sequence]) -> None:
        """The lessons' next segments, together but for those that run alone."""
        alone = [[sequence] for sequence in sequences if sequence.runs_alone]
        shared = [sequence for sequence in sequences if not sequence.runs_alone]
        for group in [*alone, shared]:
            try:
                self._teach_group([sequence for sequence in group if not sequence.done])
            except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
                self._separate(group, error)

    def _teach_group(self, sequences: list[Sequence]) -> None:
        by_lesson = {sequence.lesson: sequence for sequence in sequences if sequence.lesson}
        for lesson, error in self._teaching.step(list(by_lesson)):
            self._finish(by_lesson[lesson], error=error)
        for lesson, sequence in by_lesson.items():
            if lesson.finished:
                self._finish(sequence)

    def _separate(self, sequences: list[Sequence], error: Exception) -> None:
        """A step of these sequences failed: the only one ends; several are read again, one by one."""
        if len(sequences) == 1:
            self._fail(sequences[0], error)
            return
        self._runner.check_device()
        log.warning("a step of %d sequences failed; each of them goes on alone", len(sequences), exc_info=error)
        self._hear(_Launched())
        for sequence in [s for s in sequences if not s.done]:
            with self._ending(sequence):
                self._read_again(sequence)

    def _read_again(self, sequence: Sequence) -> None:
        sequence.runs_alone = True
        if sequence.lesson:
            self._teaching.end(sequence.lesson)
            sequence.lesson.restart()
            self._teaching.begin(sequence.lesson)
        else:
            sequence.restart()
            self._pools.load(sequence)

    @contextmanager
    def _ending(self, sequence: Sequence) -> Iterator[None]:
        """What is raised inside ends the sequence, not the loop."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
            self._fail(sequence, error)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence with a refusal of its own, or with a fault of ours.

        Raises:
            Exception: what the device raises when it is lost, to everybody.
        """
        if isinstance(error, HopeError):
            self._finish(sequence, error=error)
            return
        self._finish(sequence, error=_failed(sequence, error))
        self._runner.check_device()

    def _finish(
        self, sequence: Sequence, *, reason: FinishReason | None = None, error: Exception | None = None
    ) -> None:
        if sequence.done:
            return
        if sequence.keeps_state and error is None and not sequence.cancelled:
            sequence.final_state = self._pools.save(sequence)
        self._scheduler.remove(sequence)
        for holder in (sequence, *sequence.forks):
            self._pools.release(holder)
            holder.done = True
        if sequence.lesson:
            self._teaching.end(sequence.lesson)
        tell(sequence, reason=reason, error=error)

    def _drop_expired(self, now: float) -> None:
        for sequence in self._scheduler.expired(now):
            error = None if sequence.cancelled else DeadlineExceeded("the deadline passed before the work was done")
            self._finish(sequence, error=error)


def tell(sequence: Sequence, *, reason: FinishReason | None = None, error: Exception | None = None) -> None:
    """Let whoever waits for a sequence know how it ended."""
    sequence.finish_reason, sequence.error, sequence.done = reason, error, True
    sequence.finished_at = time.monotonic()
    try:
        sequence.listener.on_end(sequence)
    except Exception as fault:  # noqa: BLE001  a fault ends whose it is, not everybody
        sequence.error = _failed(sequence, fault)
        sequence.listener.on_end(sequence)


def _failed(sequence: Sequence, cause: Exception) -> EngineFault:
    failed = EngineFault(f"{sequence.purpose.value} failed")
    failed.__cause__ = cause
    return failed
