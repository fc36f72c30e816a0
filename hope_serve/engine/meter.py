"""What the engine's thread measures of its own work."""

from __future__ import annotations

from hope_serve.api.engine import Purpose
from hope_serve.engine.scheduler import Plan, Scheduler
from hope_serve.engine.sequence import Sequence
from hope_serve.engine.slots import SlotTable
from hope_serve.metrics import Metrics


class Meter:
    """Keeps the engine's gauges true and its counters running.

    Args:
        reads, learns: whether the engine does; the gauges of what it does not do are another engine's.
    """

    def __init__(self, metrics: Metrics, scheduler: Scheduler, *, reads: bool = True, learns: bool = True) -> None:
        self._metrics, self._scheduler = metrics, scheduler
        self._reads, self._learns = reads, learns
        self._slots: SlotTable | None = None

    def watch(self, slots: SlotTable) -> None:
        """Show these slots, too."""
        self._slots = slots

    def show(self) -> None:
        """Set every gauge; called whenever the thread comes round, work or none, so that none outlives what it says."""
        scheduler, metrics = self._scheduler, self._metrics
        adapting = sum(1 for sequence in scheduler.running if sequence.purpose is Purpose.LEARN)
        if self._learns:
            metrics.requests_adapting().set(adapting)
        if not self._reads:
            return
        metrics.requests_running().set(len(scheduler.running) - adapting)
        metrics.requests_waiting().set(len(scheduler.waiting))
        metrics.queue_tokens().set(scheduler.queue_tokens)
        metrics.memory_slots_used().set(self._slots.num_used if self._slots else 0)

    def count(self, plan: Plan) -> None:
        """Prompt tokens as they are read: an answer that is cut off has cost them, too."""
        for piece in plan.pieces:
            self.read(piece.sequence, piece.length)

    def read(self, sequence: Sequence, num_tokens: int) -> None:
        """Tokens of a sequence's prompt."""
        if sequence.purpose is Purpose.GENERATE:
            self._metrics.prompt_tokens_total().inc(num_tokens)

    def wrote(self, num_tokens: int) -> None:
        """Tokens that were drawn, whether or not anybody still waits for them."""
        self._metrics.generation_tokens_total().inc(num_tokens)

    def observe(self, num_tokens: int, seconds: float) -> None:
        """One step."""
        self._metrics.engine_step_seconds().observe(seconds)
        self._metrics.batch_tokens().observe(num_tokens)
