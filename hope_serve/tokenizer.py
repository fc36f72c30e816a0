"""Text to token ids and back: byte-level BPE, a chat template, and decoding that never splits a character."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from hope_serve.api import Message

PAD, DOC, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|doc|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL_TOKENS = (PAD, DOC, USER, ASSISTANT, SYSTEM, END)

LONG = 1024
"""Characters or ids from which on the batched form is used, even for one: it alone lets other threads go on."""


class Tokenizer:
    """A byte-level BPE with this project's special tokens.

    Text is only ever text: a special token's spelling inside it is encoded as ordinary characters.
    """

    def __init__(self, fast: FastTokenizer) -> None:
        fast.encode_special_tokens = True
        self._fast = fast
        ids = [fast.token_to_id(token) for token in SPECIAL_TOKENS]
        missing = [token for token, at in zip(SPECIAL_TOKENS, ids, strict=True) if at is None]
        if missing:
            raise ValueError(f"tokenizer lacks the special tokens {', '.join(missing)}: it is of another model family")
        self.pad, self.doc, self.user, self.assistant, self.system, self.end = range(len(SPECIAL_TOKENS))
        if ids != list(range(len(ids))):
            raise ValueError(f"special tokens have ids {ids}; they must be the first ones, in order")
        self._roles = {"user": self.user, "assistant": self.assistant, "system": self.system}

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read ``tokenizer.json``."""
        return cls(FastTokenizer.from_file(str(path)))

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
        """Number of ids, special ones included."""
        return int(self._fast.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, nothing added."""
        if len(text) > LONG:
            return self.encode_batch([text])[0]
        return list(self._fast.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of many texts at once."""
        return [list(e.ids) for e in self._fast.encode_batch(list(texts), add_special_tokens=False)]

    def encode_document(self, text: str) -> list[int]:
        """A text to be learned or continued: opened, not closed."""
        return [self.doc, *self.encode(text)]

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
        """Text of ids; special tokens have none."""
        if len(ids) > LONG:
            return str(self._fast.decode_batch([list(ids)], skip_special_tokens=True)[0])
        return str(self._fast.decode(list(ids), skip_special_tokens=True))

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; none for a special token."""
        if token < len(SPECIAL_TOKENS):
            return b""
        return bytes(_BYTE_OF_SYMBOL[symbol] for symbol in str(self._fast.id_to_token(token)))


class StreamDecoder:
    """Decodes ids one by one and gives out only whole characters; bytes that form none become U+FFFD."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that became certain with this token; empty while a character is incomplete."""
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """What an incomplete character at the end leaves."""
        return self._utf8.decode(b"", final=True)


def documents(path: Path, separator: str = "\x1e") -> Iterator[str]:
    """Documents of a text file, each ended by a line that holds only ``separator``."""
    lines: list[str] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.rstrip("\n") == separator:
                yield "".join(lines)
                lines.clear()
            else:
                lines.append(line)
    if lines:
        yield "".join(lines)


def _byte_symbols() -> dict[str, int]:
    """The byte that each symbol of a byte-level vocabulary stands for.

    Printable Latin-1 bytes stand for themselves; the others, in order, for the code points from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTE_OF_SYMBOL = MappingProxyType(_byte_symbols())
