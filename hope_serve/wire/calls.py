"""What a caller asks for, before text has become tokens: the same nouns in the client and in the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hope_serve.api import (
    MAX_PROBES,
    MAX_REQUEST_ID,
    AdaptOptions,
    GenerateRequest,
    Learn,
    MemoryChoice,
    SamplingParams,
    Source,
    check_name,
    check_range,
    check_versions,
)
from hope_serve.errors import InvalidRequest
from hope_serve.wire.content import Content, is_messages

LEARN_SUFFIX = ".learn"


@dataclass(frozen=True, kw_only=True)
class GenerateCall:
    """A generation. ``user_id`` "" is the plain model; ``learn`` None learns nothing."""

    prompt: Content
    user_id: str = ""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    memory: MemoryChoice = field(default_factory=MemoryChoice)
    session_id: str = ""
    learn: Learn | None = None
    request_id: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        GenerateRequest(
            prompt=(), session_id=self.session_id, request_id=self.request_id, priority=self.priority
        )  # the engine's own ranges, before any text is tokenised
        if self.learn is not None:
            self._check_learn()

    @property
    def learn_request_id(self) -> str:
        """Names the adaptation that follows."""
        return self.request_id + LEARN_SUFFIX

    def _check_learn(self) -> None:
        if not self.user_id:
            raise InvalidRequest("learn", "user_id is empty; name the user whose memory shall learn")
        if not is_messages(self.prompt) or self.prompt[-1].role != "user":
            raise InvalidRequest("learn", "the prompt does not end with a user's turn; give messages that do")
        if self.learn is Learn.WHOLE_EXCHANGE and self.sampling.n > 1:
            raise InvalidRequest("learn", f"sampling.n is {self.sampling.n}; an exchange has one answer: set n to 1")
        check_name("request_id", self.request_id, MAX_REQUEST_ID - len(LEARN_SUFFIX), required=False)


@dataclass(frozen=True, kw_only=True)
class ScoreCall:
    """Continuations of one prompt to weigh."""

    prompt: Content
    continuations: Sequence[str | Sequence[int]]
    user_id: str = ""
    memory: MemoryChoice = field(default_factory=MemoryChoice)


@dataclass(frozen=True, kw_only=True)
class ProbeCall:
    """A text to weigh. ``prompt`` None: the text begins a document."""

    continuation: str | Sequence[int]
    prompt: Content | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateCall:
    """Probes to weigh by the plain model and by versions of a memory; no versions means the newest."""

    user_id: str
    probes: Sequence[ProbeCall]
    versions: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_range("probes (count)", len(self.probes), 1, MAX_PROBES)
        check_versions(tuple(self.versions))


@dataclass(frozen=True, kw_only=True)
class AdaptCall:
    """Something to learn, exactly once per user and request id."""

    user_id: str
    input: Content
    request_id: str
    expected_version: int | None = None
    options: AdaptOptions = field(default_factory=AdaptOptions)
    source: Source = field(default_factory=Source)
