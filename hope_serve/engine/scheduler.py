"""Who runs next: admission, order, and what one step computes. No model code."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from hope_serve.api import Owner
from hope_serve.engine.fairness import FairQueue
from hope_serve.engine.sequence import Sequence
from hope_serve.errors import DeadlineExceeded, Exhausted

# Until a rate was measured, assume a slow one: a deadline refused in error costs a retry, one missed costs the work.
ASSUMED_TOKENS_PER_SECOND = 1000.0
ASSUMED_LEARNING_PER_SECOND = 500.0
RATE_MEMORY = 0.9
LEAST_STEP_TOKENS = 16
"""Prompt tokens that go in a step, however long they take."""


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one sequence that one step feeds."""

    sequence: Sequence
    length: int


@dataclass(frozen=True)
class Plan:
    """One step: one token each of ``decode``, ``pieces`` of known tokens, whole segments of ``lessons``."""

    decode: list[Sequence] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    lessons: list[Sequence] = field(default_factory=list)

    @property
    def num_lesson_tokens(self) -> int:
        """Tokens of the lessons' segments."""
        return sum(s.lesson.next_length() for s in self.lessons if s.lesson)

    @property
    def num_read_tokens(self) -> int:
        """Tokens that are fed to no lesson."""
        return len(self.decode) + sum(piece.length for piece in self.pieces)

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return self.num_read_tokens + self.num_lesson_tokens


class Scheduler:
    """Waiting and running sequences. Lives on the engine's thread, but for ``admit``, which callers' threads use.

    Args:
        max_step_tokens: known tokens that one step may feed besides the decoding sequences.
        max_queue_tokens: tokens that may wait; more is refused.
        max_lessons: lessons that may be under way.
        max_lesson_tokens: tokens of lessons that one step may learn; one segment always goes.
        adapt_step_seconds: how long the lessons of one step may take while others wait for it; one segment always
            goes.
        align: cut prompts only at multiples of this many tokens (0: anywhere), so that the arithmetic of a
            sequence does not depend on who else runs.

    While sequences draw, prompts get as much time as drawing takes, in every second step, and lessons as much time as
    all others have: so nobody who draws is slowed to less than about a quarter by what others bring. The steps
    between, without prompts, are those that tell how long drawing takes.
    """

    def __init__(
        self,
        *,
        max_step_tokens: int,
        max_queue_tokens: int,
        max_lessons: int = 1,
        max_lesson_tokens: int = 1 << 30,
        adapt_step_seconds: float = 0.05,
        align: int = 0,
    ) -> None:
        self._max_step_tokens = max_step_tokens
        self._max_queue_tokens = max_queue_tokens
        self._max_lessons, self._max_lesson_tokens = max_lessons, max_lesson_tokens
        self._drawing_seconds = 0.0
        self._prompts_wait = False
        self._num_plans = 0
        self._lesson_debt = 0.0
        self._adapt_step_seconds = adapt_step_seconds
        self._align = align
        self._tokens_per_second = ASSUMED_TOKENS_PER_SECOND
        self._learning_per_second = ASSUMED_LEARNING_PER_SECOND
        self._admitted: dict[Sequence, int] = {}
        self._lock = threading.Lock()
        self._reads: FairQueue[Sequence] = FairQueue()
        self._lessons: FairQueue[Sequence] = FairQueue()
        self.running: list[Sequence] = []

    @property
    def waiting(self) -> list[Sequence]:
        """Everybody who has not started."""
        return [*self._reads, *self._lessons]

    @property
    def queue_tokens(self) -> int:
        """Tokens of work that wait to start, admitted ones on their way here included."""
        with self._lock:
            return sum(self._admitted.values())

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not (self._reads or self._lessons or self.running)

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
        """Let a sequence wait for its turn: tenants take turns, then their users; priority orders a user's own."""
        line = self._lessons if sequence.lesson else self._reads
        line.push(
            sequence,
            tenant=sequence.owner.tenant if sequence.owner else "",
            user=sequence.owner.user if sequence.owner else "",
            cost=max(1, sequence.work),
            priority=sequence.priority,
        )

    def expired(self, now: float) -> list[Sequence]:
        """Sequences whose deadline has passed, or that were cancelled."""
        return [s for s in (*self.waiting, *self.running) if s.cancelled or s.deadline <= now]

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is."""
        self._count_out(sequence)
        self._reads.remove(sequence)
        self._lessons.remove(sequence)
        if sequence in self.running:
            self.running.remove(sequence)

    def start(self, num_free_slots: int) -> list[Sequence]:
        """Move waiting sequences to running, in turn, while slots and places for lessons last."""
        started: list[Sequence] = []
        # Whoever comes behind must not overtake for ever one that needs several slots.
        while (first := self._reads.peek()) and first.num_slots <= num_free_slots:
            num_free_slots -= first.num_slots
            started.append(self._reads.pop())
        places = self._max_lessons - sum(1 for s in self.running if s.lesson)
        while places > 0 and self._lessons:
            places -= 1
            started.append(self._lessons.pop())
        for sequence in started:
            self._count_out(sequence)
        self.running += started
        return started

    def plan(self) -> Plan:
        """What the next step computes: every sequence that draws, prompts while their budget lasts, and lessons.

        A sequence whose slot is still being filled is waited for only when there is nothing else to do.
        """
        here = [sequence for sequence in self.running if not sequence.is_arriving]
        plan = self._plan_of(here)
        if not plan.num_tokens and len(here) < len(self.running):
            plan = self._plan_of(self.running)
        self._prompts_wait = bool(plan.decode and plan.pieces)
        self._num_plans += 1
        for piece in plan.pieces:
            piece.sequence.last_fed = self._num_plans
        return plan

    def _plan_of(self, sequences: list[Sequence]) -> Plan:
        plan = Plan(decode=[sequence for sequence in sequences if sequence.draws])
        budget = self._prompt_budget(others_draw=bool(plan.decode))
        prompts = [s for s in sequences if s.num_unfed and not (s.draws or s.lesson)] if budget > 0 else []
        for sequence in self._in_turn(prompts):
            if budget <= 0:
                break
            if length := self._cut(sequence, budget):
                plan.pieces.append(Piece(sequence, length))
                budget -= length
        plan.lessons.extend(self._segments(others_wait=plan.num_read_tokens > 0))
        return plan

    def _in_turn(self, prompts: list[Sequence]) -> list[Sequence]:
        """Those first whose owner was not fed for longest, then those that themselves were not.

        So nobody's short prompt waits until another's long one has been read.
        """
        if len(prompts) < 2:
            return prompts
        fed: dict[Owner | None, int] = {}
        for sequence in self.running:
            fed[sequence.owner] = max(sequence.last_fed, fed.get(sequence.owner, 0))
        return sorted(prompts, key=lambda sequence: (fed[sequence.owner], sequence.last_fed))

    def measured(self, plan: Plan, *, reading: float, learning: float, num_lesson_tokens: int) -> None:
        """Learn how fast prompts and lessons go, for estimates. Seconds of each part of a step."""
        num_prompt_tokens = plan.num_read_tokens - len(plan.decode)
        if not num_prompt_tokens and plan.decode:
            self._drawing_seconds = _smoothed(self._drawing_seconds or reading, reading)
        elif num_prompt_tokens >= LEAST_STEP_TOKENS:
            seconds = max(reading - (self._drawing_seconds if plan.decode else 0.0), reading / 10, 1e-6)
            self._tokens_per_second = _smoothed(self._tokens_per_second, num_prompt_tokens / seconds)
        if learning > 0 and num_lesson_tokens >= LEAST_STEP_TOKENS:
            self._learning_per_second = _smoothed(self._learning_per_second, num_lesson_tokens / learning)
        self._lesson_debt = max(0.0, self._lesson_debt + learning - reading) if plan.num_read_tokens else 0.0

    def _segments(self, *, others_wait: bool) -> list[Sequence]:
        """The lessons of a step: all of them, or as many segments as others can be made to wait for."""
        chosen: list[Sequence] = []
        if others_wait and self._lesson_debt > 0:
            return chosen
        left = self._adapt_step_seconds * self._learning_per_second if others_wait else float("inf")
        left = min(left, self._max_lesson_tokens)
        for sequence in [s for s in self.running if s.lesson and not s.lesson.finished]:
            assert sequence.lesson
            left -= sequence.lesson.next_length()
            if chosen and left < 0:
                break
            chosen.append(sequence)
        for sequence in chosen:
            # Lessons take turns, so that a long one does not hold up the others.
            self.running.remove(sequence)
            self.running.append(sequence)
        return chosen

    def _prompt_budget(self, *, others_draw: bool) -> int:
        """Known tokens that the next step may feed."""
        if not others_draw:
            return self._max_step_tokens
        if self._prompts_wait or not self._drawing_seconds:
            return 0
        fair = round(2 * self._drawing_seconds * self._tokens_per_second)
        return min(self._max_step_tokens, max(LEAST_STEP_TOKENS, fair))

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


def _smoothed(before: float, now: float) -> float:
    return RATE_MEMORY * before + (1 - RATE_MEMORY) * now
