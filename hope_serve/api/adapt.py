"""Text to learn, and what learning it did."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from hope_serve.api.call import MAX_REQUEST_ID, Timings
from hope_serve.api.limits import check_name, check_range
from hope_serve.api.memory import Durability, LevelReport, Source
from hope_serve.api.owner import Owner
from hope_serve.errors import InvalidRequest

DIGEST_DIGITS = 64


class AdaptMode(enum.Enum):
    """What becomes of an adaptation."""

    COMMIT = "commit"
    COMMIT_IF_IMPROVED = "commit_if_improved"
    DRY_RUN = "dry_run"


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
class AdaptStreamRequest:
    """A history to learn, part by part; exactly once per (owner, request_id).

    Args:
        declared_digest: of the contents of all parts, as ``StreamedPart.digest``; "" when nobody knows it yet.
    """

    owner: Owner
    request_id: str
    declared_digest: str = ""
    expected_version: int | None = None
    options: AdaptOptions = field(default_factory=AdaptOptions)
    source: Source = field(default_factory=Source)
    deadline: float = math.inf

    def __post_init__(self) -> None:
        check_name("request_id", self.request_id, MAX_REQUEST_ID)
        if self.expected_version is not None:
            check_range("expected_version", self.expected_version, 0, 2**62)
        digits = self.declared_digest
        if digits and (len(digits) != DIGEST_DIGITS or set(digits) - set("0123456789abcdef")):
            raise InvalidRequest(
                "payload_digest", f"{digits[:80]!r} is no sha256; give {DIGEST_DIGITS} of 0-9 and a-f, or leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class StreamedPart:
    """One part of a history: a document's tokens, and the digest of the contents up to its end."""

    tokens: tuple[int, ...]
    digest: str


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
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, kw_only=True)
class AdaptStreamResult:
    """An acknowledged history. ``num_parts_resumed``: parts that an earlier call had learned."""

    result: AdaptResult
    num_parts_resumed: int = 0
