"""Plain text as one long row of ids, and windows drawn from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hope_serve.api import Message
from hope_serve.tokenizer import Tokenizer, documents

ROLES = MappingProxyType(
    {"User": "user", "Assistant": "assistant", "User 1": "user", "User 2": "assistant", "A": "user", "B": "assistant"}
)
_BATCH = 256

Ids = npt.NDArray[np.uint16]


class TextWindows:
    """Random windows over tokenised files.

    Args:
        ids: all documents, one after the other.
        tokenizer: that they were made with.
        seed: of the draw.
    """

    def __init__(self, ids: Ids, tokenizer: Tokenizer, *, seed: int) -> None:
        self._ids, self._doc = ids, tokenizer.doc
        self.reseed(seed)
        newlines = [i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i).endswith(b"\n")]
        self._lines = np.flatnonzero(np.isin(ids, newlines))

    def reseed(self, *seeds: int) -> None:
        """Draw from here on as a new object with these seeds would."""
        self._random = np.random.default_rng(seeds)

    def draw(self, tokens: int) -> list[int]:
        """``tokens`` consecutive ids from anywhere."""
        at = int(self._starts(1, tokens)[0])
        return [int(i) for i in self._ids[at : at + tokens]]

    def batch(self, rows: int, tokens: int) -> npt.NDArray[np.int64]:
        """[rows, tokens] windows; every other one begins like a document, at the start of a line."""
        starts = self._starts(rows, tokens)
        lines = self._lines[self._lines < len(self._ids) - tokens]
        if len(lines):
            starts[::2] = self._random.choice(lines, len(starts[::2]))
        picked: npt.NDArray[np.int64] = self._ids[starts[:, None] + np.arange(tokens)].astype(np.int64)
        if len(lines):
            picked[::2, 0] = self._doc
        return picked

    def _starts(self, rows: int, tokens: int) -> npt.NDArray[np.int64]:
        if len(self._ids) <= tokens:
            raise ValueError(f"the text has {len(self._ids)} tokens, and a window takes {tokens}; name more text")
        return self._random.integers(0, len(self._ids) - tokens, rows)


def tokenize_files(tokenizer: Tokenizer, paths: tuple[Path, ...], *, cache: Path | None = None) -> Ids:
    """Every document of ``paths`` as ids, each opened and closed by its special tokens.

    ``cache``: a folder that keeps the ids of files already read with this tokenizer.

    Raises:
        ValueError: the vocabulary does not fit 16 bits, or there is no text.
    """
    if tokenizer.vocab_size > 2**16:
        raise ValueError(f"vocabulary of {tokenizer.vocab_size} does not fit 16 bits; use one of at most {2**16}")
    if not paths:
        raise ValueError("no text files are named; name at least one")
    return np.concatenate([_file_ids(tokenizer, path, cache) for path in paths])


def _file_ids(tokenizer: Tokenizer, path: Path, cache: Path | None) -> Ids:
    stat = path.stat()
    identity = f"{tokenizer.digest()}|{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    kept = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy" if cache else None
    if kept and kept.exists():
        loaded: Ids = np.load(kept, allow_pickle=False)
        return loaded
    parts = [np.asarray(ids, dtype=np.uint16) for ids in _encoded(tokenizer, path)]
    if not parts:
        raise ValueError(f"{path} holds no documents")
    ids = np.concatenate(parts)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, ids)
    return ids


def _encoded(tokenizer: Tokenizer, path: Path) -> Iterator[list[int]]:
    """The file's documents; dialogues become turns of the chat template."""
    stream = documents(path)
    while batch := list(islice(stream, _BATCH)):
        plain = [text for text in batch if _turns(text) is None]
        yield from ([tokenizer.doc, *ids, tokenizer.end] for ids in tokenizer.encode_batch(plain))
        for text in batch:
            if (turns := _turns(text)) is not None:
                yield tokenizer.encode_chat(turns, reply=False)


def _turns(text: str) -> list[Message] | None:
    """A dialogue's turns, or None for any other text."""
    turns = []
    for line in text.strip().split("\n"):
        speaker, colon, said = line.partition(": ")
        if not colon or speaker not in ROLES:
            return None
        turns.append(Message(role=ROLES[speaker], text=said.strip()))
    return turns
