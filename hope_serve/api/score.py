"""Continuations and probes to weigh, with memories and without."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hope_serve.api.generate import MemoryChoice
from hope_serve.api.limits import check_range, check_versions
from hope_serve.api.owner import Owner

MAX_CONTINUATIONS = 256
MAX_PROBES = 256


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """Log-likelihood of each continuation after one prompt."""

    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    owner: Owner | None = None
    payer: str = ""
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
