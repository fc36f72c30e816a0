"""One running item of the engine: tokens to feed, what to do with the outcome, and where it stands."""

from __future__ import annotations

import enum
import math
import time
from dataclasses import dataclass, field
from typing import Protocol

from hope_serve.api import FinishReason, SamplingParams
from hope_serve.engine.adapter import Lesson
from hope_serve.model.hope import Deltas
from hope_serve.model.state import SequenceState


class Purpose(enum.Enum):
    """Why a sequence runs."""

    GENERATE = "generate"
    SCORE = "score"
    LEARN = "learn"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a sequence begins with: a conversation's state, and what its memory reads as."""

    state: SequenceState | None = None
    consumed: int = 0
    deltas: Deltas | None = None


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One generated token and what may be said of it."""

    token: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()


class SequenceFailed(Exception):
    """A fault of the server's own ended this sequence, and no other; its cause is the fault."""


class Listener(Protocol):
    """Whoever waits for a sequence; called on the engine's thread, so it must be quick. What it raises ends it."""

    def on_token(self, sequence: Sequence, sampled: Sampled) -> bool:
        """A token was generated; returns True to end the sequence here, as at a stop string."""
        ...

    def on_end(self, sequence: Sequence) -> None:
        """The sequence has left the engine: finished, failed or cancelled."""
        ...


@dataclass(eq=False, kw_only=True)
class Sequence:
    """Tokens known so far, and how many of them the model has seen.

    forks: further choices that share this one's prompt and start when it has been fed.
    draw_key: decides its draws, see ``draws.row_key``.
    targets, score_from: for scoring, the successor of every token, and the first whose likelihood is asked for.
    keeps_state: its state is wanted when it has finished.
    runs_alone: a step failed that it shared, so it shares no more of them.

    The engine's thread alone changes a sequence after it was submitted, but for ``cancelled``.
    """

    purpose: Purpose
    tokens: list[int]
    listener: Listener
    start: Start = field(default_factory=Start)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    draw_key: int = 0
    stop_ids: frozenset[int] = frozenset()
    lesson: Lesson | None = None
    priority: int = 0
    deadline: float = math.inf
    forks: list[Sequence] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    score_from: int = 0
    keeps_state: bool = False
    runs_alone: bool = False

    num_fed: int = 0
    num_prompt: int = 0
    slot: int = 0
    sampled: list[Sampled] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    greedy_hits: list[bool] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    final_state: SequenceState | None = None
    error: BaseException | None = None
    done: bool = False
    cancelled: bool = False
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    prefilled_at: float = 0.0
    finished_at: float = 0.0

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    def restart(self) -> None:
        """Let the model read everything again, what was written so far included; what was written stays."""
        self.num_fed, self.token_logprobs, self.greedy_hits = 0, [], []

    @property
    def consumed(self) -> int:
        """Tokens that the sequence's state has behind it, those of earlier turns included."""
        return self.start.consumed + self.num_fed

    @property
    def num_unfed(self) -> int:
        """Tokens known but not yet seen by the model."""
        return len(self.tokens) - self.num_fed

    @property
    def work(self) -> int:
        """Tokens still to be computed before the first reply, for queues and budgets."""
        if self.lesson:
            return self.lesson.num_left
        return self.num_unfed + sum(fork.num_unfed - self.num_prompt for fork in self.forks)

    @property
    def num_slots(self) -> int:
        """Slots it needs to start."""
        return 0 if self.purpose is Purpose.LEARN else 1 + len(self.forks)
