"""Text to token ids and back: byte-level BPE, a chat template, and decoding that never splits a character."""

from __future__ import annotations

import codecs
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from hope_serve.message import Message

PAD, DOC, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|doc|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL_TOKENS = (PAD, DOC, USER, ASSISTANT, SYSTEM, END)

LONG = 1024
"""Characters or ids from which on the batched form is used, even for one: it alone lets other threads go on."""

_log = logging.getLogger(__name__)
_PROBE = "Zoë's 2 naïve cafés\n\tof  日本語 🎉 "


class TokenizerError(ValueError):
    """The file is no tokenizer of this project's models; the message names what is wrong with it."""


class Vocabulary(Protocol):
    """A model's tokenizer as serving needs it."""

    @property
    def starts(self) -> tuple[int, ...]:
        """What stands at the beginning of a document."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """Ids that end a reply."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    def has(self, token: int) -> bool:
        """Whether the id stands for a token: a model's vocabulary may have ids that its tokenizer lacks."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, nothing added."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of many texts at once."""
        ...

    def encode_lesson(self, text: str) -> list[int]:
        """A document to be learned."""
        ...

    def encode_chat(self, messages: Sequence[Message], *, reply: bool = True) -> list[int]:
        """Turns, then (``reply``) the opening of the assistant's next one.

        Raises:
            ValueError: the model's template refuses them.
        """
        ...

    def encode_following(self, messages: Sequence[Message]) -> list[int]:
        """Turns behind a reply that has just ended, and the opening of the next one."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens, and ids that stand for no token, have none."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; none for a special token, and for an id that stands for no token."""
        ...


class Tokenizer:
    """A byte-level BPE with this project's special tokens.

    Text is only ever text: a special token's spelling inside it is encoded as ordinary characters. All of a text is
    encoded, and nothing else: a file's ``truncation`` and ``padding`` are how others fill batches, and are left out.

    Raises:
        TokenizerError: of another family, or text would not come back as it was.
    """

    def __init__(self, fast: FastTokenizer) -> None:
        if fast.truncation or fast.padding:
            _log.warning("the tokenizer file's truncation and padding are not applied: texts are encoded whole")
            fast.no_truncation()
            fast.no_padding()
        fast.encode_special_tokens = True
        self._fast = fast
        self.pad, self.doc, self.user, self.assistant, self.system, self.end = _special_ids(fast)
        self.starts, self.ends = (self.doc,), frozenset({self.end})
        self._roles = {"user": self.user, "assistant": self.assistant, "system": self.system}
        self._bytes = _bytes_of_tokens(fast)
        self._check_round_trip()

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read ``tokenizer.json``.

        Raises:
            TokenizerError: it cannot be read, or is of another family.
        """
        try:
            return cls(read_fast(path))
        except TokenizerError as error:
            raise TokenizerError(f"{path.name}: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn merges from ``texts``."""
        fast = FastTokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        fast.train_from_iterator(texts, trainer)
        return cls(fast)

    def save(self, path: Path) -> None:
        """Write ``tokenizer.json``."""
        self._fast.save(str(path))

    def digest(self) -> str:
        """Sha256 of the vocabulary and merges."""
        return hashlib.sha256(self._fast.to_str().encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._bytes) + 1

    def has(self, token: int) -> bool:
        """Whether the id stands for a token: a model's vocabulary may have ids that its tokenizer lacks."""
        return token in self._bytes

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, nothing added."""
        if len(text) > LONG:
            return self.encode_batch([text])[0]
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of many texts at once."""
        return batch_ids(self._fast, texts)

    def encode_document(self, text: str) -> list[int]:
        """A text to be learned or continued: opened, not closed."""
        return [self.doc, *self.encode(text)]

    def encode_lesson(self, text: str) -> list[int]:
        """A document to be learned: opened and closed."""
        return [*self.encode_document(text), self.end]

    def encode_following(self, messages: Sequence[Message]) -> list[int]:
        """Turns behind a reply: every one opens and closes itself."""
        return self.encode_chat(messages)

    def encode_turn(self, message: Message) -> list[int]:
        """One closed turn.

        Raises:
            ValueError: the role is not one of the template's.
        """
        if message.role not in self._roles:
            raise ValueError(f"role {message.role!r} is unknown; choose one of {', '.join(self._roles)}")
        return [self._roles[message.role], *self.encode(message.text), self.end]

    def encode_chat(self, messages: Sequence[Message], *, reply: bool = True) -> list[int]:
        """Closed turns, then (``reply``) the opening of the assistant's next one."""
        ids = [i for message in messages for i in self.encode_turn(message)]
        return [*ids, self.assistant] if reply else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens, and ids that stand for no token, have none."""
        if len(ids) > LONG:
            return str(self._fast.decode_batch([list(ids)], skip_special_tokens=True)[0])
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; none for a special token, and for an id that stands for no token."""
        return self._bytes.get(token, b"")

    def _check_round_trip(self) -> None:
        """Refuse what changes or loses text: lower case, added spaces, bytes without a token, another decoder."""
        ids = self.encode(_PROBE)
        streamed = b"".join(map(self.token_bytes, ids)).decode(errors="replace")
        for back in (streamed, self.decode(ids)):
            if back != _PROBE:
                raise TokenizerError(f"turns {_PROBE!r} into {back!r}; only a byte-level BPE that keeps text is read")


class StreamDecoder:
    """Decodes ids as they come and gives out only whole characters; bytes that form none become U+FFFD."""

    def __init__(self, tokenizer: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, *tokens: int) -> str:
        """The text that became certain with these tokens; empty while a character is incomplete."""
        return self._utf8.decode(b"".join(map(self._tokenizer.token_bytes, tokens)))

    def flush(self) -> str:
        """What an incomplete character at the end leaves."""
        return self._utf8.decode(b"", final=True)


def documents(path: Path, separator: str = "\x1e") -> Iterator[str]:
    """Documents of a text file, each ended by a line that holds only ``separator``."""
    lines: list[str] = []
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.rstrip("\n") == separator:
                yield "".join(lines)
                lines.clear()
            else:
                lines.append(line)
    if lines:
        yield "".join(lines)


def read_fast(path: Path) -> FastTokenizer:
    """The library's tokenizer of a ``tokenizer.json``. Raises TokenizerError: it cannot be read."""
    try:
        return FastTokenizer.from_buffer(path.read_bytes())
    except OSError as error:
        raise TokenizerError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TokenizerError(f"this is no tokenizer file ({error}); fetch it again") from error


def batch_ids(fast: FastTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Ids of plain texts, without where in its text each token stands.

    Keeping that takes as long again, and letting go of it holds up every other thread: 14 ms after a megabyte.
    """
    return [encoding.ids for encoding in fast.encode_batch_fast(list(texts), add_special_tokens=False)]


def _special_ids(fast: FastTokenizer) -> range:
    ids = [fast.token_to_id(token) for token in SPECIAL_TOKENS]
    missing = [token for token, at in zip(SPECIAL_TOKENS, ids, strict=True) if at is None]
    if missing:
        raise TokenizerError(f"lacks the special tokens {', '.join(missing)}: it is of another model family")
    if ids != list(range(len(ids))):
        raise TokenizerError(f"gives the special tokens the ids {ids}; they must be the first ones, in order")
    return range(len(ids))


def _bytes_of_tokens(fast: FastTokenizer) -> dict[int, bytes]:
    if getattr(fast.model, "dropout", None):
        raise TokenizerError(f"has dropout {fast.model.dropout}: a text would get other ids every time; remove it")
    vocabulary = fast.get_vocab(with_added_tokens=False)
    if lost := sorted(BYTE_OF_SYMBOL.keys() - vocabulary.keys()):
        raise TokenizerError(f"lacks tokens for {len(lost)} of the 256 bytes, {lost[0]!r} first: text would be lost")
    added = fast.get_added_tokens_decoder()
    try:
        plain = {
            at: bytes(BYTE_OF_SYMBOL[symbol] for symbol in token) for token, at in vocabulary.items() if at not in added
        }
    except KeyError as error:
        raise TokenizerError(f"has a token with {error}, which is no byte; only a byte-level BPE is read") from error
    return plain | {at: b"" if token.special else token.content.encode() for at, token in added.items()}


def _byte_symbols() -> dict[str, int]:
    """The byte that each symbol of a byte-level vocabulary stands for.

    Printable Latin-1 bytes stand for themselves; the others, in order, for the code points from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


BYTE_OF_SYMBOL = MappingProxyType(_byte_symbols())
