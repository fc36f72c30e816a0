"""Who runs next: admission, order, and what one step computes. No model code."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from hope_serve.engine.arrivals import Arrivals
from hope_serve.engine.fairness import FairQueue
from hope_serve.engine.outbid import giving_way
from hope_serve.engine.pace import Pace, Spent, Wanted
from hope_serve.engine.sequence import Sequence
from hope_serve.engine.turns import in_turn, rows_of
from hope_serve.errors import DeadlineExceeded, Exhausted

MAX_WRITERS = 4096
"""Users whose written tokens are not charged yet, while nobody waits for a turn."""


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of one sequence that one step feeds."""

    sequence: Sequence
    length: int


@dataclass(frozen=True)
class Plan:
    """One step: one token each of ``decode``, ``pieces`` of known tokens, whole segments of ``lessons``.

    beside_seconds: see ``Allowance``.
    """

    decode: list[Sequence] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    lessons: list[Sequence] = field(default_factory=list)
    beside_seconds: float = 0.0

    @property
    def num_lesson_tokens(self) -> int:
        """Tokens of the lessons' segments."""
        return sum(s.lesson.next_length() for s in self.lessons if s.lesson)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the pieces."""
        return sum(piece.length for piece in self.pieces)

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decode) + self.num_prompt_tokens + self.num_lesson_tokens


class Scheduler:
    """Waiting and running sequences. Lives on the engine's thread, but for ``admit``, which callers' threads use.

    Args:
        max_step_tokens: known tokens that one step may feed besides the decoding sequences.
        max_queue_tokens: tokens that may wait; more is refused.
        max_lessons: lessons that may be under way.
        max_lesson_tokens: tokens of lessons that one step may learn; one segment always goes.
        adapt_step_seconds: how long the lessons of one step may take while others wait for it; one segment always
            goes, and with it those that hardly make it longer.
        align: cut prompts only at multiples of this many tokens (0: anywhere), so that the arithmetic of a
            sequence does not depend on who else runs.

    How much of a step is for drawing, for prompts and for lessons is ``Pace``'s.
    """

    def __init__(
        self,
        *,
        max_step_tokens: int,
        max_queue_tokens: int,
        max_lessons: int = 1,
        max_lesson_tokens: int = 1 << 30,
        adapt_step_seconds: float = 0.01,
        align: int = 0,
    ) -> None:
        self._max_queue_tokens = max_queue_tokens
        self._max_lessons, self._max_lesson_tokens = max_lessons, max_lesson_tokens
        self._pace = Pace(max_step_tokens)
        self.arrivals = Arrivals()
        self._num_plans = 0
        self._written: dict[tuple[str, str], int] = {}
        self._adapt_step_seconds = adapt_step_seconds
        self._align = align
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
            tenant=sequence.tenant,
            user=sequence.user,
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

    def giving_way(self, num_free_slots: int) -> list[Sequence]:
        """Who has to give a slot back before the next ``start``; see ``outbid``."""
        if not self._reads:
            return []
        self._charge_what_was_written()
        first = self._reads.peek()
        return giving_way(self.running, first, num_free_slots) if first else []

    def wrote(self, sequence: Sequence) -> None:
        """A token was drawn: whoever writes much is that much later in starting more."""
        turn = (sequence.tenant, sequence.user)
        self._written[turn] = self._written.get(turn, 0) + 1
        if len(self._written) > MAX_WRITERS:
            self._charge_what_was_written()

    def put_back(self, sequence: Sequence) -> None:
        """Let a running sequence wait again."""
        self.running.remove(sequence)
        self.add(sequence)

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
        plan = self._plan_of(self.arrivals.ready(self.running))
        if not plan.num_tokens and any(sequence.is_arriving for sequence in self.running):
            plan = self._plan_of(self.running)
        self._num_plans += 1
        for sequence in plan.decode:
            sequence.last_drew = self._num_plans
        for piece in plan.pieces:
            piece.sequence.last_fed = self._num_plans
        return plan

    def measured(self, plan: Plan, *, reading: float, learning: float, num_lessons: int) -> None:
        """Learn how fast drawing, prompts and lessons go. Seconds of each part of a step."""
        self._pace.measured(
            Spent(
                rows=len(plan.decode),
                prompt_tokens=plan.num_prompt_tokens,
                lessons=num_lessons,
                reading=reading,
                learning=learning,
                beside_seconds=plan.beside_seconds,
            )
        )

    def _plan_of(self, sequences: list[Sequence]) -> Plan:
        draws: list[Sequence] = []
        prompts: list[Sequence] = []
        lessons: list[Sequence] = []
        for sequence in sequences:
            if sequence.lesson:
                lessons += [] if sequence.lesson.finished else [sequence]
            elif sequence.draws:
                draws.append(sequence)
            elif sequence.num_unfed:
                prompts.append(sequence)
        rows = Counter([sequence.tenant for sequence in draws])
        allowance = self._pace.allow(
            Wanted(
                rows=rows,
                others=any(sequence.tenant not in rows for sequence in (*prompts, *lessons)),
                prompts=bool(prompts),
                lessons=bool(lessons),
            )
        )
        return Plan(
            decode=rows_of(draws, allowance.rows),
            pieces=self._pieces(prompts, allowance.prompt_tokens),
            lessons=self._segments(lessons, others_wait=bool(draws or prompts)) if allowance.lessons else [],
            beside_seconds=allowance.beside_seconds,
        )

    def _charge_what_was_written(self) -> None:
        """Count it for those whose turn may come: while nobody waits, it can wait too."""
        for (tenant, user), tokens in self._written.items():
            self._reads.charge(tenant=tenant, user=user, cost=tokens)
        self._written.clear()

    def _pieces(self, prompts: list[Sequence], budget: int) -> list[Piece]:
        pieces: list[Piece] = []
        for sequence in in_turn(prompts, self.running) if budget > 0 else ():
            if budget <= 0:
                break
            if length := self._cut(sequence, budget):
                pieces.append(Piece(sequence, length))
                budget -= length
        return pieces

    def _segments(self, lessons: list[Sequence], *, others_wait: bool) -> list[Sequence]:
        """The lessons of a step: all of them, or as many segments as others can be made to wait for."""
        chosen: list[Sequence] = []
        left = self._max_lesson_tokens
        if others_wait and lessons:
            lessons = lessons[: self._pace.lessons(len(lessons), self._adapt_step_seconds)]
        for sequence in lessons:
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

    def _check(self, sequence: Sequence, *, ahead: int) -> None:
        if ahead and ahead + sequence.work > self._max_queue_tokens:
            raise Exhausted(
                f"{ahead} tokens are waiting and {sequence.work} more would pass the limit of "
                f"{self._max_queue_tokens}; retry later or on another server",
                retry_after=max(0.1, ahead / self._pace.tokens_per_second),
                reason="QUEUE_FULL",
            )
        seconds = (ahead + sequence.work) / self._pace.tokens_per_second
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
