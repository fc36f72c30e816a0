"""The contract of an engine: token ids in, token ids out.

Text, stop strings, stores and accounts are other rooms' business. What a user has learned, and what a conversation
carries, are opaque here: an engine makes them, keeps them on the host, and is handed them back.
"""

from __future__ import annotations

import enum
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import msgspec

from hope_serve.api.adapt import AdaptMetrics, AdaptOptions
from hope_serve.api.call import Timings
from hope_serve.api.generate import FinishReason, TokenLogprob
from hope_serve.api.model import ModelInfo
from hope_serve.api.owner import Owner
from hope_serve.api.sampling import SamplingParams
from hope_serve.api.score import ScoreResult

Memory = TypeVar("Memory")
"""What generation reads of one version of a user's memory, on the host."""
Learned = TypeVar("Learned")
"""Everything a memory is made of, on the host: what a lesson begins with and leads to."""
State = TypeVar("State")
"""What a conversation carries from turn to turn, on the host."""


class EngineFault(Exception):
    """A fault of the engine's own ended this task, and no other; its cause is the fault."""


class Purpose(enum.Enum):
    """Why a sequence runs."""

    GENERATE = "generate"
    SCORE = "score"
    LEARN = "learn"


@dataclass(frozen=True, kw_only=True)
class Carried(Generic[State]):
    """A conversation between two turns.

    consumed: tokens behind it. unfed: the last turn's last token, when the model has not seen it yet.
    """

    state: State
    consumed: int
    unfed: int | None = None


@dataclass(frozen=True, kw_only=True)
class GenerateTask(Generic[Memory, State]):
    """Ids to continue.

    Args:
        prompt: ids that follow what is carried.
        memory: what to read; None is the plain model.
        carried: the conversation so far.
        keeps_state: what the one choice carries on is wanted at its end.
        ends_text: for each choice, whether a token ends its text, as at a stop string; asked once a token, in order,
            on the engine's own thread, so it must be quick. None when nothing but ids can end it.
        owner: whose turn this takes.
        payer: the tenant whose turn it takes where nobody owns it.
    """

    prompt: tuple[int, ...]
    sampling: SamplingParams
    end_ids: frozenset[int] = frozenset()
    memory: Memory | None = None
    carried: Carried[State] | None = None
    keeps_state: bool = False
    ends_text: tuple[Callable[[int], bool], ...] | None = None
    priority: int = 0
    deadline: float = math.inf
    owner: Owner | None = None
    payer: str = ""


class TokenDrawn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One more token of a choice; no dataclass for the reason of ``TokenLogprob``."""

    choice: int
    token: int
    is_end: bool = False
    logprob: TokenLogprob | None = None


@dataclass(frozen=True, kw_only=True)
class ChoiceEnded(Generic[State]):
    """A choice is complete. ``num_prompt``, ``num_drawn``: tokens read and drawn; ``num_reread``: of earlier turns."""

    choice: int
    reason: FinishReason
    num_prompt: int
    num_drawn: int
    timings: Timings
    carried: Carried[State] | None = None
    num_reread: int = 0


Events = Sequence[TokenDrawn | ChoiceEnded[State]]
"""What became of a task's choices, in its order."""


@dataclass(frozen=True, kw_only=True)
class ScoreTask(Generic[Memory]):
    """Continuations to weigh after one prompt, which is read once for all."""

    prompt: tuple[int, ...]
    continuations: Sequence[tuple[int, ...]]
    memory: Memory | None = None
    priority: int = 0
    deadline: float = math.inf
    owner: Owner | None = None
    payer: str = ""


@dataclass(frozen=True, kw_only=True)
class LearnTask(Generic[Learned]):
    """A document to learn on top of ``before``."""

    tokens: tuple[int, ...]
    before: Learned
    options: AdaptOptions = field(default_factory=AdaptOptions)
    deadline: float = math.inf
    owner: Owner | None = None


@dataclass(frozen=True, kw_only=True)
class Taught(Generic[Learned]):
    """What a lesson led to, as it will read once it was stored."""

    learned: Learned
    metrics: AdaptMetrics
    timings: Timings


class Engine(Protocol[Memory, Learned, State]):
    """Batches everybody's work on one device. One thread or process owns the device; callers await on an event loop."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""
        ...

    @property
    def failure(self) -> BaseException | None:
        """What ended the engine, if it has ended."""
        ...

    async def ended(self) -> None:
        """Returns when it has ended, one way or another."""
        ...

    def seconds_since_step(self) -> float:
        """Seconds since it last came round; it does so while idle, too."""
        ...

    async def start(self) -> None:
        """Take tasks."""
        ...

    async def close(self) -> None:
        """Stop after the current step."""
        ...

    def generate(self, task: GenerateTask[Memory, State]) -> AsyncGenerator[Events[State]]:
        """Tokens of every choice, and one ChoiceEnded each; all that came since the caller last asked, at least one.

        Leaving early frees its slots within a step.

        Raises:
            Exhausted, DeadlineExceeded, Unavailable: it cannot be served now.
            EngineFault: the task's own computation failed; nobody else's did.
        """
        ...

    async def score(self, task: ScoreTask[Memory]) -> tuple[ScoreResult, ...]:
        """The log-likelihood of every continuation; raises as ``generate``."""
        ...

    async def learn(self, task: LearnTask[Learned]) -> Taught[Learned]:
        """What the document makes of the memory; raises as ``generate``, and FailedPrecondition when it is refused."""
        ...
