"""What a model's own limits refuse; every refusal names the field, the value, the limit and the remedy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from hope_serve.api import (
    AdaptOptions,
    AdaptRequest,
    EvaluateRequest,
    GenerateRequest,
    ModelInfo,
    ScoreRequest,
    StreamedPart,
)
from hope_serve.errors import InvalidRequest


class Checks:
    """Checks requests against one model and ``max_slots`` slots."""

    def __init__(self, info: ModelInfo, *, max_slots: int) -> None:
        self._info, self._max_slots = info, max_slots

    def generate(self, request: GenerateRequest) -> None:
        """Raises InvalidRequest."""
        self._tokens("following", request.following, least=0, most=self._info.max_prompt_tokens)
        if not request.session_id:
            self.context(request)
        self._tokens("prompt", request.prompt, least=0 if request.session_id else 1, most=self._info.max_prompt_tokens)
        self._ids("sampling.stop_token_ids", request.sampling.stop_token_ids)
        self._ids("sampling.logit_bias", tuple(token for token, _ in request.sampling.logit_bias))
        if request.sampling.n > self._max_slots:
            raise InvalidRequest(
                "sampling.n",
                f"{request.sampling.n} choices need more than the {self._max_slots} slots; ask for fewer",
            )
        if request.session_id and request.owner is None:
            raise InvalidRequest("session_id", "a conversation needs a user_id; set it, or leave session_id out")
        if request.session_id and request.sampling.n != 1:
            raise InvalidRequest("sampling.n", f"{request.sampling.n} choices cannot continue one session; set n to 1")

    def context(self, request: GenerateRequest, *, behind: int = 0) -> None:
        """Whether prompt and answer fit behind what a conversation has said so far. Raises InvalidRequest."""
        limit, prompt, asked = self._info.max_context_tokens, len(request.prompt), request.sampling.max_tokens
        if not limit or behind + prompt + asked <= limit:
            return
        remedy = "start a new session_id" if behind else "send less"
        earlier = f"{behind} tokens of earlier turns, " if behind else ""
        left = limit - behind - prompt
        fewer = f"ask for at most {left}, " if left > 0 else ""
        raise InvalidRequest(
            "sampling.max_tokens",
            f"{earlier}{prompt} of the prompt and {asked} of the answer are more than the context of {limit} tokens; "
            f"{fewer}{remedy}, or serve with a larger engine.max_context_tokens",
            reason="CONTEXT_FULL",
        )

    def adapt(self, request: AdaptRequest) -> None:
        """Raises InvalidRequest."""
        self._tokens("tokens", request.tokens, least=2, most=self._info.max_adapt_tokens)
        self.options(request.options)

    async def parts(self, parts: AsyncGenerator[StreamedPart]) -> AsyncGenerator[StreamedPart]:
        """The parts of a history, each within the limits of an Adapt. Raises InvalidRequest."""
        index = 0
        async with aclosing(parts):
            async for part in parts:
                self._tokens(f"parts[{index}]", part.tokens, least=2, most=self._info.max_adapt_tokens)
                yield part
                index += 1

    def options(self, options: AdaptOptions) -> None:
        """Raises InvalidRequest."""
        for level in options.levels:
            if not 0 <= level < len(self._info.level_chunk_sizes):
                raise InvalidRequest(
                    "options.levels",
                    f"{level} is not an online level; the model has 0 to {len(self._info.level_chunk_sizes) - 1}",
                )

    def score(self, request: ScoreRequest) -> None:
        """Raises InvalidRequest."""
        self._tokens("prompt", request.prompt, least=1, most=self._info.max_prompt_tokens)
        most = self._info.max_prompt_tokens - len(request.prompt)
        for i, continuation in enumerate(request.continuations):
            self._tokens(f"continuations[{i}]", continuation, least=1, most=most)

    def evaluate(self, request: EvaluateRequest) -> None:
        """Raises InvalidRequest."""
        for i, probe in enumerate(request.probes):
            self._tokens(f"probes[{i}].prompt", probe.prompt, least=1, most=self._info.max_prompt_tokens)
            most = self._info.max_prompt_tokens - len(probe.prompt)
            self._tokens(f"probes[{i}].continuation", probe.continuation, least=1, most=most)

    def _tokens(self, field: str, tokens: Sequence[int], *, least: int, most: int) -> None:
        if len(tokens) < least:
            raise InvalidRequest(field, f"{len(tokens)} tokens are fewer than {least}; send more")
        if len(tokens) > most:
            raise InvalidRequest(
                field, f"{len(tokens)} tokens are more than the limit of {most}; send less", reason="TOO_LONG"
            )
        self._ids(field, tokens)

    def _ids(self, field: str, tokens: Sequence[int]) -> None:
        size = self._info.vocab_size
        if not tokens or (min(tokens) >= 0 and max(tokens) < size):
            return
        token = next(token for token in tokens if not 0 <= token < size)
        raise InvalidRequest(field, f"token id {token} is outside the vocabulary [0, {size}); use its tokenizer")
