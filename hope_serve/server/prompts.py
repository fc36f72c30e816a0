"""Text to token ids on the way in: templates, the vocabulary's and the model's limits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence

import msgspec

from hope_serve.api import AdaptOptions, ModelInfo, SamplingParams
from hope_serve.errors import InvalidRequest
from hope_serve.tokenizer import Tokenizer
from hope_serve.wire.content import Content, is_messages

INLINE_CHARS = 4096
"""Longer texts are tokenised in a thread (the tokenizer lets go of the interpreter), so that no stream stutters."""

Ids = tuple[int, ...]


class Prompts:
    """Encodes what calls bring for one model; every refusal is an InvalidRequest that names the field."""

    def __init__(self, tokenizer: Tokenizer, info: ModelInfo) -> None:
        self.tokenizer = tokenizer
        self._info = info

    async def prompt(self, content: Content) -> Ids:
        """Ids to continue: turns and the opening of the next, or text as it stands, from the middle of anywhere."""
        ids = await self.plain(content)
        return self._within("prompt", ids, self._info.max_prompt_tokens, "PROMPT_TOO_LONG")

    async def document_start(self, content: Content | None) -> Ids:
        """As ``prompt``; None is the beginning of a document."""
        return (self.tokenizer.doc,) if content is None else await self.prompt(content)

    async def continuation(self, content: str | Sequence[int]) -> Ids:
        """Ids that follow a prompt."""
        ids = await self._encode(content, self.tokenizer.encode, reply=False)
        return self._within("continuations", ids, self._info.max_prompt_tokens, "PROMPT_TOO_LONG")

    async def lesson(self, content: Content, *, reserved: int = 0) -> Ids:
        """Ids to learn: a closed document, or closed turns. ``reserved`` tokens are still to be added to them."""
        ids = await self._encode(
            content, lambda text: [*self.tokenizer.encode_document(text), self.tokenizer.end], reply=False
        )
        return self._within("input", ids, self._info.max_adapt_tokens - reserved, "INPUT_TOO_LONG")

    async def plain(self, content: Content) -> Ids:
        """Ids of text alone, or of turns and the opening of the next."""
        return await self._encode(content, self.tokenizer.encode, reply=True)

    def check_ids(self, field: str, ids: Iterable[int]) -> None:
        """Refuse ids outside the vocabulary."""
        size = self._info.vocab_size
        for i, token in enumerate(ids):
            if not 0 <= token < size:
                raise InvalidRequest(
                    f"{field}[{i}]", f"{token} is outside the vocabulary [0, {size - 1}]", reason="UNKNOWN_TOKEN"
                )

    def check_sampling(self, sampling: SamplingParams) -> None:
        """Refuse sampling parameters that name ids outside the vocabulary."""
        self.check_ids("sampling.stop_token_ids", sampling.stop_token_ids)
        self.check_ids("sampling.logit_bias", (token for token, _ in sampling.logit_bias))

    async def _encode(self, content: Content, encode_text: Callable[[str], list[int]], *, reply: bool) -> Ids:
        if isinstance(content, str):
            return tuple(await _offloaded(len(content), lambda: encode_text(content)))
        if is_messages(content):
            size = sum(len(message.text) for message in content)
            return tuple(await _offloaded(size, lambda: self.tokenizer.encode_chat(content, reply=reply)))
        ids: Ids = tuple(content)  # type: ignore[arg-type]  # neither text nor turns
        self.check_ids("token_ids", ids)
        return ids

    def _within(self, field: str, ids: Ids, limit: int, reason: str) -> Ids:
        if len(ids) > limit:
            raise InvalidRequest(
                field, f"{len(ids)} tokens are more than the limit of {limit}; send less at once", reason=reason
            )
        return ids


def payload_digest(tokens: Ids, options: AdaptOptions, expected_version: int | None) -> str:
    """What makes two adaptations the same: sha256 over tokens, options and expected version."""
    return hashlib.sha256(msgspec.json.encode((tokens, options, expected_version))).hexdigest()


async def _offloaded(num_chars: int, encode: Callable[[], list[int]]) -> list[int]:
    return encode() if num_chars <= INLINE_CHARS else await asyncio.to_thread(encode)
