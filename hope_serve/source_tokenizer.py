"""The tokenizer of a converted model: its maker's own vocabulary, special tokens and chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from hope_serve.chat_template import ChatTemplate, ChatTemplateError
from hope_serve.message import Message
from hope_serve.tokenizer import BYTE_OF_SYMBOL, LONG, TokenizerError, batch_ids, read_fast

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MARKS = range(0xF0000, 0xF0100)
"""Characters of private use: one that no message holds stands for what must stay text."""
_ASKED, _SAID = "question", "reply"


class SourceTokenizer:
    """See ``Vocabulary``. What a user writes is only ever text; the template alone writes special tokens.

    Args:
        path: ``tokenizer.json``.
        chat_template: the source's (Jinja); empty for a model that continues text and does not chat.
        stop_tokens: ids that end a reply.
        bos_token, eos_token: texts that the template may name.

    Raises:
        TokenizerError: the file cannot be read, or no id ends a reply.
    """

    def __init__(
        self,
        path: Path,
        *,
        chat_template: str,
        stop_tokens: Sequence[int],
        bos_token: str = "",
        eos_token: str = "",
    ) -> None:
        # One that knows special tokens, for what the template writes, and one that knows none, for what users write.
        self._marked, self._plain = _whole(read_fast(path)), _whole(read_fast(path))
        self._plain.encode_special_tokens = True
        self._bytes = _bytes_of_tokens(self._marked)
        added = self._marked.get_added_tokens_decoder()
        self._special = {token.content for token in added.values() if token.special}
        self._spelled = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) or r"(?!)")
        self._template, self._refusal = _template(chat_template, bos_token, eos_token)
        self.ends = frozenset(stop_tokens)
        self._end_texts = [added[end].content for end in sorted(self.ends) if end in added]
        self.starts = self._starts(bos_token)

    @property
    def vocab_size(self) -> int:
        """See ``Vocabulary``."""
        return max(self._bytes) + 1

    def has(self, token: int) -> bool:
        """See ``Vocabulary.has``."""
        return token in self._bytes

    def encode(self, text: str) -> list[int]:
        """See ``Vocabulary.encode``."""
        if len(text) > LONG:
            return self.encode_batch([text])[0]
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """See ``Vocabulary.encode_batch``."""
        return batch_ids(self._plain, texts)

    def encode_lesson(self, text: str) -> list[int]:
        """See ``Vocabulary.encode_lesson``: the text as it stands, the way memory parts are trained."""
        return self.encode(text)

    def encode_chat(self, messages: Sequence[Message], *, reply: bool = True) -> list[int]:
        """See ``Vocabulary.encode_chat``: as the source's template writes it."""
        marked = _Marked(self._spelled, [message.text for message in messages])
        roles = [message.role for message in messages]
        return self._ids(self._rendered(list(zip(roles, marked.texts, strict=True)), reply=reply), marked)

    def encode_following(self, messages: Sequence[Message]) -> list[int]:
        """See ``Vocabulary.encode_following``: what the template writes between a reply's end and the next one."""
        marked = _Marked(self._spelled, [message.text for message in messages])
        turns = [(message.role, text) for message, text in zip(messages, marked.texts, strict=True)]
        before = [("user", _ASKED), ("assistant", _SAID)]
        try:
            earlier, whole = self._rendered(before, reply=False), self._rendered([*before, *turns], reply=True)
        except ChatTemplateError:
            return self.encode_chat(messages)  # it takes no second turn
        if not whole.startswith(earlier) or _SAID not in earlier:
            return self.encode_chat(messages)
        closing = earlier[earlier.rindex(_SAID) + len(_SAID) :]
        ended = next((end for end in self._end_texts if closing.startswith(end)), "")
        return self._ids(closing.removeprefix(ended) + whole[len(earlier) :], marked)

    def decode(self, ids: Sequence[int]) -> str:
        """See ``Vocabulary.decode``."""
        known = [token for token in ids if token in self._bytes]
        if len(known) > LONG:
            return str(self._marked.decode_batch([known], skip_special_tokens=True)[0])
        return str(self._marked.decode(known, skip_special_tokens=True))

    def token_bytes(self, token: int) -> bytes:
        """See ``Vocabulary.token_bytes``."""
        return self._bytes.get(token, b"")

    def _rendered(self, turns: Sequence[tuple[str, str]], *, reply: bool) -> str:
        if self._template is None:
            raise ChatTemplateError(self._refusal)
        return self._template.render(turns, reply=reply)

    def _ids(self, text: str, marked: _Marked) -> list[int]:
        """Ids of rendered text, what stands for a spelling encoded as the ordinary characters that it is."""
        ids: list[int] = []
        for i, part in enumerate(marked.split(text)):
            if i % 2:
                ids += self.encode(marked.spellings[int(part)])
            elif part:
                ids += batch_ids(self._marked, [part])[0]
        return ids

    def _starts(self, bos_token: str) -> tuple[int, ...]:
        bos = self._marked.token_to_id(bos_token) if bos_token else None
        if bos is not None:
            return (bos,)
        if not self.ends:
            raise TokenizerError("the model names neither a token that begins a text nor one that ends a reply")
        return (min(self.ends),)


class _Marked:
    """Messages in which every spelling of a special token is a mark and a number."""

    def __init__(self, spelled: re.Pattern[str], texts: Sequence[str]) -> None:
        self.spellings: list[str] = []
        self._mark = next(chr(code) for code in _MARKS if not any(chr(code) in text for text in texts))
        self.texts = [spelled.sub(self._put, text) for text in texts]

    def split(self, text: str) -> list[str]:
        """Text, number, text, number, …, text."""
        return re.split(f"{self._mark}([0-9]+){self._mark}", text)

    def _put(self, found: re.Match[str]) -> str:
        self.spellings.append(found[0])
        return f"{self._mark}{len(self.spellings) - 1}{self._mark}"


def _whole(fast: FastTokenizer) -> FastTokenizer:
    fast.no_truncation()
    fast.no_padding()
    return fast


def _template(source: str, bos_token: str, eos_token: str) -> tuple[ChatTemplate | None, str]:
    """The template, or why there is none: a model without one still continues text."""
    try:
        return ChatTemplate(source, bos_token=bos_token, eos_token=eos_token), ""
    except ChatTemplateError as error:
        return None, str(error)


def _bytes_of_tokens(fast: FastTokenizer) -> Mapping[int, bytes]:
    """What each id stands for: in a byte-level vocabulary, or in one of characters with bytes for the rest."""
    vocabulary, added = fast.get_vocab(with_added_tokens=False), fast.get_added_tokens_decoder()
    byte_level = "ByteLevel" in repr(fast.decoder)
    plain = {at: _of_symbols(token) if byte_level else _of_characters(token) for token, at in vocabulary.items()}
    return plain | {at: b"" if token.special else token.content.encode() for at, token in added.items()}


def _of_symbols(token: str) -> bytes:
    if all(symbol in BYTE_OF_SYMBOL for symbol in token):
        return bytes(BYTE_OF_SYMBOL[symbol] for symbol in token)
    return token.encode()


def _of_characters(token: str) -> bytes:
    if byte := _BYTE.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace(_SPACE, " ").encode()
