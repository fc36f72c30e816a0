"""The engine's thread: plan, load, run, commit, reply, for as long as there is work."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hope_serve.api import FinishReason
from hope_serve.engine.meter import Meter
from hope_serve.engine.runner import Outcome, Runner
from hope_serve.engine.sampler import sample
from hope_serve.engine.scheduler import Plan, Scheduler
from hope_serve.engine.sequence import Purpose, Sampled, Sequence, SequenceFailed
from hope_serve.engine.slots import SlotPool
from hope_serve.errors import DeadlineExceeded, HopeError, Unavailable
from hope_serve.metrics import Metrics

IDLE_SECONDS = 0.5

log = logging.getLogger(__name__)


class EngineLoop:
    """Owns the device. Other threads only submit and cancel; answers come through ``Sequence.listener``.

    A fault in the work for one sequence ends that sequence. When a step fails that several share, each of them is
    read again from its start and from then on runs alone, so that whose fault it was ends alone. The loop itself ends
    when it is told to, or when the device is lost or the loop is at fault; then everybody is refused, and ``failure``
    says why.
    """

    def __init__(self, scheduler: Scheduler, slots: SlotPool, runner: Runner, metrics: Metrics) -> None:
        self._scheduler, self._slots, self._runner = scheduler, slots, runner
        self._meter = Meter(metrics, scheduler, slots)
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._thread = threading.Thread(target=self._main, name="hope-engine", daemon=True)
        self._last_step = time.monotonic()
        self._stopping = self._ended = False
        self._on_end: Callable[[], object] = lambda: None
        self.failure: BaseException | None = None

    def start(self, on_end: Callable[[], object]) -> None:
        """Start the thread, which calls ``on_end`` last."""
        self._on_end = on_end
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Hand over a sequence; from now on only the engine's thread changes it.

        Raises:
            Exhausted, DeadlineExceeded: the scheduler does not admit it.
            Unavailable: the loop has ended.
        """
        with self._door:
            if self._ended:
                raise _stopped()
            self._scheduler.admit(sequence)
            self._inbox.put(sequence)

    def wake(self) -> None:
        """Let the thread look again, after a cancellation."""
        self._inbox.put(None)

    def stop(self) -> None:
        """End the thread after its current step."""
        self._stopping = True
        self.wake()
        self._thread.join()

    @property
    def seconds_since_step(self) -> float:
        """Seconds since the thread last came round; grows when it is stuck or dead."""
        return time.monotonic() - self._last_step

    def _main(self) -> None:
        try:
            while not self._stopping:
                self._receive()
                self._step()
                self._last_step = time.monotonic()
        except BaseException as error:
            self.failure = error
            log.critical("the engine's thread ended", exc_info=error)
        finally:
            self._refuse_everybody()

    def _refuse_everybody(self) -> None:
        with self._door:
            self._ended = True
        self._take_in()
        for sequence in [*self._scheduler.waiting, *self._scheduler.running]:
            self._scheduler.remove(sequence)
            self._tell(sequence, error=_stopped())
        self._meter.show()
        self._on_end()

    def _take_in(self) -> None:
        while not self._inbox.empty():
            if sequence := self._inbox.get_nowait():
                self._scheduler.add(sequence)

    def _receive(self) -> None:
        """Take in what was submitted; wait for it when there is nothing else to do."""
        if self._scheduler.idle:
            try:
                sequence = self._inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                return
            if sequence:
                self._scheduler.add(sequence)
        self._take_in()

    def _step(self) -> None:
        began = time.monotonic()
        self._drop_expired(began)
        plan = self._plan()
        if plan.num_tokens:
            self._meter.count(plan)
            self._reply(plan, self._run(plan))
            self._scheduler.measured(plan.num_tokens, time.monotonic() - began)
            self._meter.observe(plan, time.monotonic() - began)
        self._meter.show()

    def _plan(self) -> Plan:
        for sequence in self._scheduler.start(self._slots.num_free):
            sequence.started_at = time.monotonic()
            with self._ending(sequence):
                self._load(sequence)
        return self._scheduler.plan()

    def _load(self, sequence: Sequence) -> None:
        """Give a starting sequence its slots."""
        if not sequence.num_slots:
            return
        sequence.slot = self._slots.take(sequence)
        for fork in sequence.forks:
            fork.slot = self._slots.take(fork)
        self._slots.load(sequence.slot, sequence.start.state, sequence.start.deltas)

    def _run(self, plan: Plan) -> Outcome:
        outcome: Outcome = []
        for group in self._runner.groups(plan):
            try:
                outcome += self._runner.run(group)
            except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
                self._separate([piece.sequence for piece in group.pieces], error)
        for sequence in plan.lessons:
            with self._ending(sequence):
                assert sequence.lesson is not None
                sequence.lesson.step()
        return outcome

    def _separate(self, sequences: list[Sequence], error: Exception) -> None:
        """A step of these sequences failed: the only one ends; several are read again, one by one."""
        if len(sequences) == 1:
            self._fail(sequences[0], error)
            return
        self._runner.check_device()
        log.warning("a step of %d sequences failed; each of them goes on alone", len(sequences), exc_info=error)
        for sequence in sequences:
            with self._ending(sequence):
                sequence.restart()
                sequence.runs_alone = True
                self._slots.load(sequence.slot, sequence.start.state, sequence.start.deltas)

    def _reply(self, plan: Plan, outcome: Outcome) -> None:
        for sequence in plan.lessons:
            if sequence.lesson and sequence.lesson.finished:
                self._finish(sequence)
        for sequence in [piece.sequence for piece in plan.pieces]:
            if sequence.purpose is Purpose.SCORE and not sequence.num_unfed:
                with self._ending(sequence):
                    self._finish(sequence)
        rows = [(started, row) for sequence, row in outcome for started in (sequence, *self._fork(sequence))]
        now = time.monotonic()
        for sequence, sampled in self._sampled([pair for pair in rows if not pair[0].done]):
            sequence.prefilled_at = sequence.prefilled_at or now
            with self._ending(sequence):
                self._extend(sequence, sampled)

    def _fork(self, sequence: Sequence) -> list[Sequence]:
        """Start the other choices of a prompt that has just been fed."""
        with self._ending(sequence):
            for fork in sequence.forks:
                self._slots.copy(sequence.slot, fork.slot)
                fork.num_fed, fork.started_at = sequence.num_fed, sequence.started_at
                fork.runs_alone = sequence.runs_alone
        if sequence.done:
            return []
        forks, sequence.forks = sequence.forks, []
        self._scheduler.running += forks
        return forks

    def _sampled(self, rows: list[tuple[Sequence, Tensor]]) -> list[tuple[Sequence, Sampled]]:
        """A token for each row; where that fails, for each row by itself."""
        if not rows:
            return []
        sequences = [sequence for sequence, _ in rows]
        try:
            return list(zip(sequences, sample(torch.stack([row for _, row in rows]), sequences), strict=True))
        except Exception as error:  # noqa: BLE001  a fault ends whose it is, not everybody
            if len(rows) == 1:
                self._fail(sequences[0], error)
                return []
        return [pair for row in rows for pair in self._sampled([row])]

    def _extend(self, sequence: Sequence, sampled: Sampled) -> None:
        """Add a token, and see whether the sequence ends with it."""
        sequence.sampled.append(sampled)
        sequence.tokens.append(sampled.token)
        self._meter.wrote_token()
        if sequence.listener.on_token(sequence, sampled) or sampled.token in sequence.stop_ids:
            self._finish(sequence, reason=FinishReason.STOP)
        elif len(sequence.sampled) >= sequence.sampling.max_tokens:
            self._finish(sequence, reason=FinishReason.LENGTH)

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
            sequence.final_state = self._slots.extract(sequence.slot)
        self._scheduler.remove(sequence)
        for holder in (sequence, *sequence.forks):
            self._release(holder)
        self._tell(sequence, reason=reason, error=error)

    def _tell(self, sequence: Sequence, *, reason: FinishReason | None = None, error: Exception | None = None) -> None:
        sequence.finish_reason, sequence.error, sequence.done = reason, error, True
        sequence.finished_at = time.monotonic()
        try:
            sequence.listener.on_end(sequence)
        except Exception as fault:  # noqa: BLE001  a fault ends whose it is, not everybody
            sequence.error = _failed(sequence, fault)
            sequence.listener.on_end(sequence)

    def _release(self, sequence: Sequence) -> None:
        if not sequence.slot:
            return
        moved = self._slots.release(sequence.slot)
        if isinstance(moved, Sequence):
            moved.slot = sequence.slot
        sequence.slot = 0

    def _drop_expired(self, now: float) -> None:
        for sequence in self._scheduler.expired(now):
            error = None if sequence.cancelled else DeadlineExceeded("the deadline passed before the work was done")
            self._finish(sequence, error=error)


def _stopped() -> Unavailable:
    return Unavailable("the engine stopped; another server can take the request", reason="ENGINE_STOPPED")


def _failed(sequence: Sequence, cause: Exception) -> SequenceFailed:
    failed = SequenceFailed(f"{sequence.purpose.value} failed")
    failed.__cause__ = cause
    return failed
