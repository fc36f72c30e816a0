"""A prompt to continue, and what comes back while it is continued."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

import msgspec

from hope_serve.api.call import MAX_PRIORITY, MAX_REQUEST_ID, Timings
from hope_serve.api.limits import check_name, check_range
from hope_serve.api.owner import Owner
from hope_serve.api.sampling import SamplingParams
from hope_serve.errors import InvalidRequest

MAX_SESSION_ID = 128


class FinishReason(enum.Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"


class OnMissing(enum.Enum):
    """What Generate does for a user who has no memory yet."""

    BASE = "base"
    FAIL = "fail"


class Learn(enum.Enum):
    """What a memory learns from a generation, once the answer was sent."""

    USER_TURNS = "user_turns"
    WHOLE_EXCHANGE = "whole_exchange"


class SessionOutcome(enum.Enum):
    """Whether the conversation's state was there."""

    NONE = "none"
    FRESH = "fresh"
    RESUMED = "resumed"


@dataclass(frozen=True, kw_only=True)
class MemoryChoice:
    """Which version of the user's memory Generate reads; at most one of the two versions may be set."""

    min_version: int | None = None
    exact_version: int | None = None
    on_missing: OnMissing = OnMissing.BASE
    move_session: bool = False

    def __post_init__(self) -> None:
        if self.min_version is not None and self.exact_version is not None:
            raise InvalidRequest("memory", "min_version and exact_version are both set; set at most one")
        for name in ("min_version", "exact_version"):
            if (value := getattr(self, name)) is not None:
                check_range(f"memory.{name}", value, 1, 2**62)


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Tokens to continue. ``owner`` None is the plain model; ``deadline`` is on the ``time.monotonic`` clock.

    ``following``: what stands in the prompt's place where the conversation goes on and has not begun; empty: the same.
    ``payer``: the tenant whose turn it takes, where it has no owner.
    """

    prompt: tuple[int, ...]
    following: tuple[int, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    owner: Owner | None = None
    payer: str = ""
    memory: MemoryChoice = field(default_factory=MemoryChoice)
    session_id: str = ""
    request_id: str = ""
    priority: int = 0
    deadline: float = math.inf

    def __post_init__(self) -> None:
        check_name("session_id", self.session_id, MAX_SESSION_ID, required=False)
        check_name("request_id", self.request_id, MAX_REQUEST_ID, required=False)
        check_range("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A chosen token's log-probability and the likeliest alternatives.

    No dataclass, since one is made for every token of everybody: a frozen one takes ten times as long to make.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens read and written; ``reread_tokens``: those of a conversation's earlier turns that were read again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reread_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Started:
    """First event of a generation: what it reads. Version 0 is the model without a memory."""

    memory_version: int
    session: SessionOutcome = SessionOutcome.NONE
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """New text of one choice: never half a UTF-8 character, never part of a stop string."""

    choice: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Last event of one choice."""

    choice: int
    finish_reason: FinishReason
    matched_stop: str = ""
    usage: Usage = Usage()
    timings: Timings = field(default_factory=Timings)


GenerateEvent = Started | Delta | Ended


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One answer, complete."""

    text: str
    token_ids: tuple[int, ...]
    ended: Ended
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A complete generation; ``choices`` by index."""

    started: Started
    choices: tuple[Choice, ...]
