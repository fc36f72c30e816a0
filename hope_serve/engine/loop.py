"""The engine's thread: plan, load, run, commit, reply, for as long as there is work."""

from __future__ import annotations

import queue
import threading
import time

import torch
from torch import Tensor

from hope_serve.api import FinishReason
from hope_serve.engine.runner import Runner
from hope_serve.engine.sampler import sample
from hope_serve.engine.scheduler import Plan, Scheduler
from hope_serve.engine.sequence import Purpose, Sequence
from hope_serve.engine.slots import SlotPool
from hope_serve.errors import DeadlineExceeded, HopeError
from hope_serve.metrics import Metrics

IDLE_SECONDS = 0.5


class EngineLoop:
    """Owns the device. Other threads only submit and cancel; answers come through ``Sequence.listener``."""

    def __init__(self, scheduler: Scheduler, slots: SlotPool, runner: Runner, metrics: Metrics) -> None:
        self._scheduler, self._slots, self._runner, self._metrics = scheduler, slots, runner, metrics
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="hope-engine", daemon=True)
        self._last_step = time.monotonic()
        self._stopping = False
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, sequence: Sequence) -> None:
        """Hand over a sequence; from now on only the engine's thread changes it.

        Raises:
            Exhausted, DeadlineExceeded: the scheduler does not admit it.
        """
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
            for sequence in [*self._scheduler.waiting, *self._scheduler.running]:
                self._finish(sequence, error=error)
            raise

    def _receive(self) -> None:
        """Take in what was submitted; wait for it when there is nothing else to do."""
        wait = self._scheduler.idle
        while True:
            try:
                sequence = self._inbox.get(block=wait, timeout=IDLE_SECONDS)
            except queue.Empty:
                return
            if sequence:
                self._scheduler.add(sequence)
            wait = False

    def _step(self) -> None:
        began = time.monotonic()
        self._drop_expired(began)
        plan = self._plan()
        if not plan.num_tokens:
            return
        outcome = self._run(plan)
        self._reply(plan, outcome)
        self._observe(plan, time.monotonic() - began)

    def _plan(self) -> Plan:
        for sequence in self._scheduler.start(self._slots.num_free):
            sequence.started_at = time.monotonic()
            self._load(sequence)
        return self._scheduler.plan()

    def _load(self, sequence: Sequence) -> None:
        """Give a starting sequence its slots."""
        if not sequence.num_slots:
            return
        sequence.slot = self._slots.take(sequence)
        self._slots.load(sequence.slot, sequence.start.state, sequence.start.deltas)
        for fork in sequence.forks:
            fork.slot = self._slots.take(fork)

    def _run(self, plan: Plan) -> list[tuple[Sequence, Tensor]]:
        try:
            return self._runner.run(plan)
        except HopeError as error:
            # Only a lesson refuses, and only for its own sake.
            for sequence in plan.lessons:
                self._finish(sequence, error=error)
            return []

    def _reply(self, plan: Plan, outcome: list[tuple[Sequence, Tensor]]) -> None:
        for sequence in plan.lessons:
            if sequence.lesson and sequence.lesson.finished and not sequence.done:
                self._finish(sequence)
        for sequence in [piece.sequence for piece in plan.pieces]:
            if sequence.purpose is Purpose.SCORE and not sequence.num_unfed:
                self._finish(sequence)
        rows = [(s, row) for s, row in outcome if s.purpose is Purpose.GENERATE]
        rows += [(fork, row) for s, row in rows for fork in self._fork(s)]
        if rows:
            self._extend(rows)

    def _fork(self, sequence: Sequence) -> list[Sequence]:
        """Start the other choices of a prompt that has just been fed."""
        forks, sequence.forks = sequence.forks, []
        for fork in forks:
            self._slots.copy(sequence.slot, fork.slot)
            fork.num_fed, fork.started_at = sequence.num_fed, sequence.started_at
            self._scheduler.running.append(fork)
        return forks

    def _extend(self, rows: list[tuple[Sequence, Tensor]]) -> None:
        """Sample a token for each row, and see who ends with it."""
        sequences = [sequence for sequence, _ in rows]
        now = time.monotonic()
        for sequence, sampled in zip(sequences, sample(torch.stack([r for _, r in rows]), sequences), strict=True):
            sequence.prefilled_at = sequence.prefilled_at or now
            sequence.sampled.append(sampled)
            sequence.tokens.append(sampled.token)
            stopped = sequence.listener.on_token(sequence, sampled) or sampled.token in sequence.stop_ids
            if stopped:
                self._finish(sequence, reason=FinishReason.STOP)
            elif len(sequence.sampled) >= sequence.sampling.max_tokens:
                self._finish(sequence, reason=FinishReason.LENGTH)

    def _finish(
        self, sequence: Sequence, *, reason: FinishReason | None = None, error: BaseException | None = None
    ) -> None:
        if sequence.done:
            return
        if sequence.keeps_state and error is None and reason is not None:
            sequence.final_state = self._slots.extract(sequence.slot)
        self._scheduler.remove(sequence)
        for holder in (sequence, *sequence.forks):
            self._release(holder)
        sequence.finish_reason, sequence.error, sequence.done = reason, error, True
        sequence.finished_at = time.monotonic()
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

    def _observe(self, plan: Plan, seconds: float) -> None:
        scheduler, metrics = self._scheduler, self._metrics
        scheduler.measured(plan.num_tokens, seconds)
        adapting = sum(1 for sequence in scheduler.running if sequence.purpose is Purpose.LEARN)
        metrics.engine_step_seconds().observe(seconds)
        metrics.batch_tokens().observe(plan.num_tokens)
        metrics.requests_running().set(len(scheduler.running) - adapting)
        metrics.requests_adapting().set(adapting)
        metrics.requests_waiting().set(len(scheduler.waiting))
        metrics.queue_tokens().set(scheduler.queue_tokens)
        metrics.memory_slots_used().set(self._slots.num_used)
