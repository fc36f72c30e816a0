"""How tokens are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from hope_serve.api.limits import check_range

MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_LOGPROBS = 20
MAX_CHOICES = 16
MAX_LOGIT_BIAS = 1024
MAX_SEED = 2**63 - 1
GREEDY_BELOW = 1e-5
"""Temperatures below this one are greedy: what they would tell apart is below the logits' own precision."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. Temperatures below 1e-5 are greedy; ``None`` or 0 elsewhere switches a filter off."""

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

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, and nothing drawn."""
        return self.temperature < GREEDY_BELOW

    def _check_lists(self) -> None:
        check_range("sampling.stop (count)", len(self.stop), 0, MAX_STOPS)
        check_range("sampling.stop_token_ids (count)", len(self.stop_token_ids), 0, MAX_STOPS)
        check_range("sampling.logit_bias (count)", len(self.logit_bias), 0, MAX_LOGIT_BIAS)
        for i, stop in enumerate(self.stop):
            check_range(f"sampling.stop[{i}] (characters)", len(stop), 1, MAX_STOP_CHARS)
        for token, bias in self.logit_bias:
            check_range(f"sampling.logit_bias[{token}]", bias, -100.0, 100.0)
