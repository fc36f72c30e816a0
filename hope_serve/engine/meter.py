"""What the engine's thread measures of its own work."""

from __future__ import annotations

from hope_serve.engine.scheduler import Plan, Scheduler
from hope_serve.engine.sequence import Purpose
from hope_serve.engine.slots import SlotPool
from hope_serve.metrics import Metrics


class Meter:
    """Keeps the engine's gauges true and its counters running."""

    def __init__(self, metrics: Metrics, scheduler: Scheduler, slots: SlotPool) -> None:
        self._metrics, self._scheduler, self._slots = metrics, scheduler, slots

    def show(self) -> None:
        """Set every gauge; called whenever the thread comes round, work or none, so that none outlives what it says."""
        scheduler, metrics = self._scheduler, self._metrics
        adapting = sum(1 for sequence in scheduler.running if sequence.purpose is Purpose.LEARN)
        metrics.requests_running().set(len(scheduler.running) - adapting)
        metrics.requests_adapting().set(adapting)
        metrics.requests_waiting().set(len(scheduler.waiting))
        metrics.queue_tokens().set(scheduler.queue_tokens)
        metrics.memory_slots_used().set(self._slots.num_used)

    def count(self, plan: Plan) -> None:
        """Prompt tokens as they are read: an answer that is cut off has cost them, too."""
        pieces = sum(piece.length for piece in plan.pieces if piece.sequence.purpose is Purpose.GENERATE)
        last = sum(1 for sequence in plan.decode if sequence.num_fed < sequence.num_prompt)
        self._metrics.prompt_tokens_total().inc(pieces + last)

    def wrote_token(self) -> None:
        """One token more, whether or not anybody still waits for it."""
        self._metrics.generation_tokens_total().inc()

    def observe(self, plan: Plan, seconds: float) -> None:
        """One step."""
        self._metrics.engine_step_seconds().observe(seconds)
        self._metrics.batch_tokens().observe(plan.num_tokens)
