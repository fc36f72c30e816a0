"""One running item of the engine: tokens to feed, what to do with the outcome, and where it stands. No model code."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from hope_serve.api import FinishReason, Owner, SamplingParams, Timings, TokenLogprob
from hope_serve.api.engine import Purpose
from hope_serve.engine.lesson import Lesson


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a sequence begins with: a conversation's state, the tokens behind it, and the memory it reads.

    ``state`` and ``memory`` are what the pools load; the engine's policies only hand them on. Two sequences read the
    same memory when it is the same object.
    """

    state: Any = None
    consumed: int = 0
    memory: Any = None


@dataclass(frozen=True, kw_only=True)
class History:
    """A conversation as the ids of all that was read and drawn in it, for a model that reads them again."""

    tokens: tuple[int, ...]


class Listener(Protocol):
    """Whoever waits for a sequence; called on the engine's thread, so it must be quick. What it raises ends it."""

    def on_token(self, sequence: Sequence, drawn: TokenLogprob) -> bool:
        """A token was drawn; returns True to end the sequence here, as at a stop string."""
        ...

    def on_end(self, sequence: Sequence) -> None:
        """The sequence has left the engine: finished, failed or cancelled."""
        ...


class Arrival(Protocol):
    """A copy that is on its way to the device."""

    def query(self) -> bool:
        """Whether it is there."""
        ...


@dataclass(eq=False, kw_only=True)
class Sequence:
    """Tokens known so far, how many of them were given to the model, and how many are still to be heard of.

    A step is launched before the one before it was heard of, so a sequence that draws has up to one token on the
    device that the host does not know yet: ``num_launched`` counts what was launched, ``drawn`` what was heard.

    forks: further choices that share this one's prompt and start when it has been fed.
    draw_key: decides its draws, see ``draws.row_key``.
    targets, score_from: for scoring, the successor of every token, and the first whose likelihood is asked for.
    num_reread: of its first tokens, those of earlier turns, which are read again.
    keeps_state: its state is wanted when it has finished.
    runs_alone: a step failed that it shared, so it shares no more of them.
    last_fed, last_drew: the plan that fed it a piece last, and that let it draw, of those the scheduler has made.
    payer: the tenant whose turn it takes where it has no owner.
    tenant, user: whose turn it takes; user is "" for the plain model.
    arrives: what is being copied into its slot; None when all of it is there.

    The engine's thread alone changes a sequence after it was submitted, but for ``cancelled``.
    """

    purpose: Purpose
    tokens: list[int]
    listener: Listener
    start: Start = field(default_factory=Start)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    draw_key: int = 0
    end_ids: frozenset[int] = frozenset()
    lesson: Lesson | None = None
    priority: int = 0
    deadline: float = math.inf
    owner: Owner | None = None
    forks: list[Sequence] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    score_from: int = 0
    num_reread: int = 0
    keeps_state: bool = False
    runs_alone: bool = False
    last_fed: int = 0
    last_drew: int = 0
    payer: str = ""
    arrives: Arrival | None = None
    put_aside: Any = None

    num_fed: int = 0
    num_prompt: int = 0
    num_launched: int = 0
    slot: int = 0
    drawn: list[TokenLogprob] = field(default_factory=list)
    token_logprobs: list[float] = field(default_factory=list)
    greedy_hits: list[bool] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    final_state: Any = None
    error: BaseException | None = None
    done: bool = False
    cancelled: bool = False
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float = 0.0
    prefilled_at: float = 0.0
    finished_at: float = 0.0

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)
        self.tenant = self.owner.tenant if self.owner else self.payer
        self.user = self.owner.user if self.owner else ""

    def restart(self) -> None:
        """Let the model read everything again, what was drawn so far included; what was drawn stays."""
        self.num_fed, self.num_launched, self.put_aside = 0, len(self.drawn), None
        self.token_logprobs, self.greedy_hits = [], []

    def launched_piece(self, length: int) -> None:
        """A piece of known tokens was given to the model; with the last of them it draws the next."""
        self.num_fed += length
        if self.purpose is Purpose.GENERATE and self.num_fed == len(self.tokens):
            self.num_launched += 1

    def launched_decode(self) -> None:
        """The token drawn last was given to the model, and it draws the next."""
        self.num_fed += 1
        self.num_launched += 1

    @property
    def consumed(self) -> int:
        """Tokens that the sequence's state has behind it, those of earlier turns included."""
        return self.start.consumed + self.num_fed

    @property
    def num_unfed(self) -> int:
        """Tokens known but not yet given to the model."""
        return max(0, len(self.tokens) - self.num_fed)

    @property
    def draws(self) -> bool:
        """Whether its next step feeds the token drawn last, which need not be known yet."""
        return (
            self.purpose is Purpose.GENERATE
            and 0 < self.num_launched < self.sampling.max_tokens
            and self.num_fed >= self.num_prompt + self.num_launched - 1
        )

    @property
    def is_arriving(self) -> bool:
        """Whether its slot is still being filled."""
        if self.arrives is not None and self.arrives.query():
            self.arrives = None
        return self.arrives is not None

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

    def timings(self) -> Timings:
        """Seconds in each stage, once it has finished."""
        prefilled = self.prefilled_at or self.finished_at
        return Timings(
            queue_seconds=max(0.0, self.started_at - self.submitted_at),
            prefill_seconds=max(0.0, prefilled - self.started_at),
            decode_seconds=max(0.0, self.finished_at - prefilled),
        )
