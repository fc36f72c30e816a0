"""The requests and replies of the engine, free of any wire format. Checked where they are made."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from hope_serve.errors import InvalidRequest

MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_LOGPROBS = 20
MAX_CHOICES = 16
MAX_LOGIT_BIAS = 1024
MAX_REQUEST_ID = 64
MAX_SESSION_ID = 128
MAX_USER_ID = 256
MAX_PRIORITY = 100
MAX_CONTINUATIONS = 256
MAX_PROBES = 256
MAX_VERSIONS = 8
MIN_PASSPHRASE, MAX_PASSPHRASE = 8, 1024
MAX_SEED = 2**63 - 1


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


class AdaptMode(enum.Enum):
    """What becomes of an adaptation."""

    COMMIT = "commit"
    COMMIT_IF_IMPROVED = "commit_if_improved"
    DRY_RUN = "dry_run"


class Durability(enum.Enum):
    """Where an acknowledged commit is safe."""

    VOLATILE = "volatile"
    LOCAL_FSYNC = "local_fsync"
    REPLICATED_FSYNC = "replicated_fsync"


class SessionOutcome(enum.Enum):
    """Whether the conversation's state was there."""

    NONE = "none"
    FRESH = "fresh"
    RESUMED = "resumed"


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. Temperature 0 is greedy; ``None`` or 0 elsewhere switches a filter off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = 128
    min_tokens: int = 0
    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        check_range("sampling.temperature", self.temperature, 0.0, 100.0)
        check_range("sampling.top_p", self.top_p, 0.0, 1.0, open_low=True)
        check_range("sampling.top_k", self.top_k, 0, 2**31 - 1)
        check_range("sampling.min_p", self.min_p, 0.0, 1.0)
        check_range("sampling.repetition_penalty", self.repetition_penalty, 0.0, 10.0, open_low=True)
        check_range("sampling.presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_range("sampling.frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_range("sampling.max_tokens", self.max_tokens, 1, 2**20)
        check_range("sampling.min_tokens", self.min_tokens, 0, self.max_tokens)
        check_range("sampling.n", self.n, 1, MAX_CHOICES)
        if self.seed is not None:
            check_range("sampling.seed", self.seed, 0, MAX_SEED)
        if self.logprobs is not None:
            check_range("sampling.logprobs", self.logprobs, 0, MAX_LOGPROBS)
        self._check_lists()

    def _check_lists(self) -> None:
        check_range("sampling.stop (count)", len(self.stop), 0, MAX_STOPS)
        check_range("sampling.stop_token_ids (count)", len(self.stop_token_ids), 0, MAX_STOPS)
        check_range("sampling.logit_bias (count)", len(self.logit_bias), 0, MAX_LOGIT_BIAS)
        for i, stop in enumerate(self.stop):
            check_range(f"sampling.stop[{i}] (characters)", len(stop), 1, MAX_STOP_CHARS)
        for token, bias in self.logit_bias:
            check_range(f"sampling.logit_bias[{token}]", bias, -100.0, 100.0)


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
class Owner:
    """Whose memory: a user inside a tenant."""

    tenant: str
    user: str

    def __post_init__(self) -> None:
        check_name("user_id", self.user, MAX_USER_ID)


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """Tokens to continue. ``owner`` None is the plain model; ``deadline`` is on the ``time.monotonic`` clock."""

    prompt: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    owner: Owner | None = None
    memory: MemoryChoice = field(default_factory=MemoryChoice)
    session_id: str = ""
    request_id: str = ""
    priority: int = 0
    deadline: float = math.inf

    def __post_init__(self) -> None:
        check_name("session_id", self.session_id, MAX_SESSION_ID, required=False)
        check_name("request_id", self.request_id, MAX_REQUEST_ID, required=False)
        check_range("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """How an adaptation learns. ``levels`` empty means all online levels, fast to slow from 0."""

    levels: tuple[int, ...] = ()
    learning_rate_scale: float = 1.0
    passes: int = 1
    max_update_norm: float = 0.0
    mode: AdaptMode = AdaptMode.COMMIT

    def __post_init__(self) -> None:
        check_range("options.learning_rate_scale", self.learning_rate_scale, 0.0, 10.0)
        check_range("options.passes", self.passes, 1, 16)
        check_range("options.max_update_norm", self.max_update_norm, 0.0, 1e6)
        if len(set(self.levels)) < len(self.levels):
            raise InvalidRequest("options.levels", f"{list(self.levels)} names a level twice; name each once")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where taught text came from; kept with the version, never the text itself."""

    id: str = ""
    uri: str = ""
    time: float = 0.0

    def __post_init__(self) -> None:
        check_range("source.id (characters)", len(self.id), 0, 256)
        check_range("source.uri (characters)", len(self.uri), 0, 2048)
        check_range("source.time", self.time, 0.0, 1e11)


@dataclass(frozen=True, kw_only=True)
class AdaptRequest:
    """Tokens to learn, as one document; exactly once per (owner, request_id)."""

    owner: Owner
    request_id: str
    tokens: tuple[int, ...]
    payload_digest: str
    expected_version: int | None = None
    options: AdaptOptions = field(default_factory=AdaptOptions)
    source: Source = field(default_factory=Source)
    deadline: float = math.inf

    def __post_init__(self) -> None:
        check_name("request_id", self.request_id, MAX_REQUEST_ID)
        if self.expected_version is not None:
            check_range("expected_version", self.expected_version, 0, 2**62)


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Log-likelihood of each continuation after one prompt."""

    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    owner: Owner | None = None
    memory: MemoryChoice = field(default_factory=MemoryChoice)
    deadline: float = math.inf

    def __post_init__(self) -> None:
        check_range("continuations (count)", len(self.continuations), 1, MAX_CONTINUATIONS)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A text to weigh after its prompt."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """Probes to weigh by the plain model and by versions of a memory; no versions means the newest."""

    owner: Owner
    probes: tuple[Probe, ...]
    versions: tuple[int, ...] = ()
    deadline: float = math.inf

    def __post_init__(self) -> None:
        check_range("probes (count)", len(self.probes), 1, MAX_PROBES)
        check_versions(self.versions)


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A chosen token's log-probability and the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds spent in each stage of a request."""

    queue_seconds: float = 0.0
    restore_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


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
    timings: Timings = Timings()


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


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """One online level after an adaptation. drift = norm of the delta over the norm of the weights it moves."""

    level: int
    updates: int
    drift: float


@dataclass(frozen=True, kw_only=True)
class AdaptMetrics:
    """What an adaptation did. Losses are nats a token; surprise is the norm of the summed gradient per token."""

    tokens_given: int = 0
    tokens_used: int = 0
    nll_before: float = 0.0
    nll_after: float = 0.0
    surprise: float = 0.0
    update_norm: float = 0.0
    clipped: bool = False
    skip_reason: str = ""
    levels: tuple[LevelReport, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AdaptResult:
    """An acknowledged adaptation."""

    version: int
    base_version: int
    state_digest: str
    durability: Durability
    metrics: AdaptMetrics
    duplicate: bool = False
    timings: Timings = Timings()


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """One continuation: summed log-likelihood, per-token log-likelihoods, whether greedy decoding would say it."""

    logprob: float
    token_logprobs: tuple[float, ...] = field(default_factory=tuple)
    is_greedy: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What one version makes of the probes; version 0 is the plain model. ``nll`` is nats a token, over all of them."""

    version: int
    nll: float
    num_tokens: int
    scores: tuple[ScoreResult, ...]


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """A memory that is at hand; version 0: there is none. ``was_warm``: it had been at hand before."""

    version: int
    was_warm: bool


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The model an engine serves, and what one user's memory of it weighs."""

    name: str
    fingerprint: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_parameters: int
    max_prompt_tokens: int
    max_adapt_tokens: int
    level_chunk_sizes: tuple[int, ...]
    memory_bytes: int
    dtype: str
    device: str
    deterministic: bool


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """One version of a user's memory."""

    version: int
    num_bytes: int
    tokens_learned: int
    levels: tuple[LevelReport, ...]
    state_digest: str
    sources: tuple[Source, ...]
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class VersionReport:
    """How a version came to be. ``kind``: adapt, rollback, fork or import."""

    version: int
    base_version: int
    created_at: float
    kind: str
    request_id: str
    source: Source
    restorable: bool
    """False once its content was pruned: it is listed, but cannot be rolled back to."""


@dataclass(frozen=True, kw_only=True)
class MemorySummary:
    """One line of a listing."""

    user: str
    version: int
    num_bytes: int
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """Proof that a memory was erased: what was removed, when, and under which receipt id."""

    receipt_id: str
    versions_removed: int
    sessions_removed: int
    erased_at: float


def check_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """Refuse a number that is not finite or lies outside [low, high], or (low, high] when ``open_low``.

    Raises:
        InvalidRequest: naming field, value and limit.
    """
    within = low < value <= high if open_low else low <= value <= high
    if not within:  # also true of NaN, which passes any single comparison the other way round
        bracket = "(" if open_low else "["
        raise InvalidRequest(name, f"{value} is outside {bracket}{low}, {high}]; choose a value within it")


def check_versions(versions: tuple[int, ...]) -> None:
    """Refuse too many versions, numbers that no version has, and one that is named twice.

    Raises:
        InvalidRequest: naming field, value and limit.
    """
    check_range("versions (count)", len(versions), 0, MAX_VERSIONS)
    for i, version in enumerate(versions):
        check_range(f"versions[{i}]", version, 1, 2**62)
    if len(set(versions)) < len(versions):
        raise InvalidRequest("versions", f"{list(versions)} names a version twice; name each once")


def check_passphrase(passphrase: str | None) -> None:
    """Refuse a passphrase that is too short to protect anything, or too long; the error does not repeat it.

    Raises:
        InvalidRequest: naming field, length and limit.
    """
    if passphrase is not None:
        check_range("passphrase (characters)", len(passphrase), MIN_PASSPHRASE, MAX_PASSPHRASE)


def check_name(name: str, value: str, limit: int, *, required: bool = True) -> None:
    """Refuse an id that is too long, holds control characters, or is empty though it must not be.

    Raises:
        InvalidRequest: naming field, value and limit.
    """
    check_range(f"{name} (characters)", len(value), int(required), limit)
    if not value.isprintable():
        raise InvalidRequest(name, f"{value!r} holds unprintable characters; use letters, digits and punctuation")
