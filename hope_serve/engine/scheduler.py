"""Who runs next: admission, order, and what one step computes."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from hope_serve.engine.sequence import Purpose, Sequence
from hope_serve.errors import DeadlineExceeded, Exhausted

# Until a rate was measured, assume a slow one: a deadline refused in error costs a retry, one missed costs the work.
ASSUMED_TOKENS_PER_SECOND = 1000.0
RATE_MEMORY = 0.9


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one sequence that one step feeds."""

    sequence: Sequence
    length: int


@dataclass(frozen=True)
class Plan:
    """One step: one token each of ``decode``, ``pieces`` of prompts, whole segments of ``lessons``."""

    decode: list[Sequence] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    lessons: list[Sequence] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        segments = sum(s.lesson.next_length() for s in self.lessons if s.lesson)
        return len(self.decode) + sum(piece.length for piece in self.pieces) + segments


class Scheduler:
    """Waiting and running sequences. Lives on the engine's thread, but for ``admit``, which callers' threads use.

    Args:
        max_step_tokens: prompt tokens that one step may feed besides the decoding sequences.
        max_queue_tokens: tokens that may wait; more is refused.
        align: cut prompts only at multiples of this many tokens (0: anywhere), so that the arithmetic of a
            sequence does not depend on who else runs.
    """

    def __init__(self, *, max_step_tokens: int, max_queue_tokens: int, align: int = 0) -> None:
        self._max_step_tokens = max_step_tokens
        self._max_queue_tokens = max_queue_tokens
        self._align = align
        self._tokens_per_second = ASSUMED_TOKENS_PER_SECOND
        self._admitted: dict[Sequence, int] = {}
        self._lock = threading.Lock()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    @property
    def queue_tokens(self) -> int:
        """Tokens of work that wait to start, admitted ones on their way here included."""
        with self._lock:
            return sum(self._admitted.values())

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self.waiting and not self.running

    def admit(self, sequence: Sequence) -> None:
        """Count a sequence in, or refuse what cannot be served in time or would overfill the queue.

        Raises:
            Exhausted: the queue is full.
            DeadlineExceeded: the queue ahead and the work itself would outlast the deadline.
        """
        with self._lock:
            self._check(sequence, ahead=sum(self._admitted.values()))
            self._admitted[sequence] = sequence.work

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those of its own or a higher priority."""
        at = next((i for i, other in enumerate(self.waiting) if other.priority < sequence.priority), len(self.waiting))
        self.waiting.insert(at, sequence)

    def expired(self, now: float) -> list[Sequence]:
        """Sequences whose deadline has passed, or that were cancelled."""
        return [s for s in (*self.waiting, *self.running) if s.cancelled or s.deadline <= now]

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is."""
        self._count_out(sequence)
        for line in (self.waiting, self.running):
            if sequence in line:
                line.remove(sequence)

    def start(self, num_free_slots: int) -> list[Sequence]:
        """Move waiting sequences to running, in order, while slots last; lessons need none and pass by."""
        started: list[Sequence] = []
        for sequence in list(self.waiting):
            if sequence.num_slots > num_free_slots:
                num_free_slots = 0
                continue
            num_free_slots -= sequence.num_slots
            self.waiting.remove(sequence)
            self._count_out(sequence)
            self.running.append(sequence)
            started.append(sequence)
        return started

    def plan(self) -> Plan:
        """What the next step computes: every decoding sequence, then prompts and lessons up to the budget."""
        plan = Plan()
        budget = self._max_step_tokens
        for sequence in self.running:
            if sequence.purpose is Purpose.LEARN:
                continue
            if sequence.purpose is Purpose.GENERATE and sequence.num_unfed == 1 and sequence.num_fed:
                plan.decode.append(sequence)
            elif sequence.num_unfed and budget > 0:
                length = self._cut(sequence, budget)
                plan.pieces.append(Piece(sequence, length))
                budget -= length
        lesson = next((s for s in self.running if s.lesson and not s.lesson.finished), None)
        if lesson:
            plan.lessons.append(lesson)
            # Lessons take turns, so that a long one does not hold up the others.
            self.running.remove(lesson)
            self.running.append(lesson)
        return plan

    def measured(self, num_tokens: int, seconds: float) -> None:
        """Learn how fast prompts go, for estimates."""
        if seconds > 0 and num_tokens >= 16:
            rate = num_tokens / seconds
            self._tokens_per_second = RATE_MEMORY * self._tokens_per_second + (1 - RATE_MEMORY) * rate

    def _check(self, sequence: Sequence, *, ahead: int) -> None:
        if ahead and ahead + sequence.work > self._max_queue_tokens:
            raise Exhausted(
                f"{ahead} tokens are waiting and {sequence.work} more would pass the limit of "
                f"{self._max_queue_tokens}; retry later or on another server",
                retry_after=max(0.1, ahead / self._tokens_per_second),
                reason="QUEUE_FULL",
            )
        seconds = (ahead + sequence.work) / self._tokens_per_second
        if time.monotonic() + seconds > sequence.deadline:
            raise DeadlineExceeded(
                f"about {seconds:.2f} s of work lie before the first reply, more than the deadline leaves; "
                "set a later deadline or send less",
                reason="DEADLINE_TOO_SHORT",
                details={"estimate_seconds": f"{seconds:.3f}"},
            )

    def _count_out(self, sequence: Sequence) -> None:
        with self._lock:
            self._admitted.pop(sequence, None)

    def _cut(self, sequence: Sequence, budget: int) -> int:
        if not self._align:
            return min(sequence.num_unfed, budget)
        room = self._align - sequence.consumed % self._align
        return min(sequence.num_unfed, room)
