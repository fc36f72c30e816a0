"""Text to token ids on the way in: templates, the vocabulary's and the model's limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from hope_serve.api import AdaptOptions, ModelInfo, SamplingParams
from hope_serve.errors import InvalidRequest
from hope_serve.tokenizer import Vocabulary
from hope_serve.wire.content import Content, is_messages

Ids = tuple[int, ...]


class Prompts:
    """Encodes what calls bring for one model; every refusal is an InvalidRequest that names the field.

    Its methods take as long as what they are given is long: see ``Workers``.
    """

    def __init__(self, tokenizer: Vocabulary, info: ModelInfo) -> None:
        self.tokenizer = tokenizer
        self._info = info

    def prompt(self, content: Content) -> Ids:
        """Ids to continue: turns and the opening of the next, or text as it stands, from the middle of anywhere."""
        ids = self.plain(content)
        return self._within("prompt", ids, self._info.max_prompt_tokens, "PROMPT_TOO_LONG")

    def following(self, content: Content) -> Ids:
        """Ids that go on with a conversation: turns behind a reply; empty where they are those of ``prompt``."""
        if not is_messages(content):
            return ()
        ids = self._chat(lambda: self.tokenizer.encode_following(content))
        return self._within("prompt", ids, self._info.max_prompt_tokens, "PROMPT_TOO_LONG")

    def document_start(self, content: Content | None) -> Ids:
        """As ``prompt``; None is the beginning of a document."""
        return self.tokenizer.starts if content is None else self.prompt(content)

    def continuation(self, content: str | Sequence[int]) -> Ids:
        """Ids that follow a prompt."""
        ids = self._encode(content, self.tokenizer.encode, reply=False)
        return self._within("continuations", ids, self._info.max_prompt_tokens, "PROMPT_TOO_LONG")

    def lesson(self, content: Content, *, reserved: int = 0) -> Ids:
        """Ids to learn: a document, or closed turns. ``reserved`` tokens are still to be added to them."""
        ids = self._encode(content, self.tokenizer.encode_lesson, reply=False)
        return self._within("input", ids, self._info.max_adapt_tokens - reserved, "INPUT_TOO_LONG")

    def plain(self, content: Content) -> Ids:
        """Ids of text alone, or of turns and the opening of the next."""
        return self._encode(content, self.tokenizer.encode, reply=True)

    def text(self, ids: Ids) -> str:
        """The text of ids; refuses those that stand for no token, which a model's vocabulary may have."""
        self._check_ids("token_ids", ids)
        for i, token in enumerate(ids):
            if not self.tokenizer.has(token):
                raise InvalidRequest(f"token_ids[{i}]", f"{token} is no token of the tokenizer", reason="UNKNOWN_TOKEN")
        return self.tokenizer.decode(ids)

    def check_sampling(self, sampling: SamplingParams) -> None:
        """Refuse sampling parameters that name ids outside the vocabulary."""
        self._check_ids("sampling.stop_token_ids", sampling.stop_token_ids)
        self._check_ids("sampling.logit_bias", tuple(token for token, _ in sampling.logit_bias))

    def _check_ids(self, field: str, ids: Ids) -> None:
        size = self._info.vocab_size
        if not ids or (min(ids) >= 0 and max(ids) < size):
            return
        at, token = next((i, token) for i, token in enumerate(ids) if not 0 <= token < size)
        raise InvalidRequest(
            f"{field}[{at}]", f"{token} is outside the vocabulary [0, {size - 1}]", reason="UNKNOWN_TOKEN"
        )

    def _encode(self, content: Content, encode_text: Callable[[str], list[int]], *, reply: bool) -> Ids:
        if isinstance(content, str):
            return tuple(encode_text(content))
        if is_messages(content):
            return self._chat(lambda: self.tokenizer.encode_chat(content, reply=reply))
        ids: Ids = tuple(content)  # type: ignore[arg-type]  # neither text nor turns
        self._check_ids("token_ids", ids)
        return ids

    def _chat(self, encode: Callable[[], list[int]]) -> Ids:
        try:
            return tuple(encode())
        except ValueError as error:
            raise InvalidRequest("messages", str(error), reason="CHAT_TEMPLATE") from error

    def _within(self, field: str, ids: Ids, limit: int, reason: str) -> Ids:
        if len(ids) > limit:
            raise InvalidRequest(
                field, f"{len(ids)} tokens are more than the limit of {limit}; send less at once", reason=reason
            )
        return ids


def payload_digest(tokens: Ids, options: AdaptOptions, expected_version: int | None) -> str:
    """What makes two adaptations the same: sha256 over tokens, options and expected version."""
    return hashlib.sha256(msgspec.json.encode((tokens, options, expected_version))).hexdigest()
