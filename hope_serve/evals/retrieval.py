"""What stands beside a memory: BM25 over the sentences that were told, and the nearest neighbour of a text."""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_WORD = re.compile(r"\w+")


def sentences(texts: Sequence[str]) -> list[str]:
    """The sentences of all texts, in their order."""
    return [part.strip() for text in texts for part in _SENTENCE_END.split(text) if part and part.strip()]


def best_sentences(told: Sequence[str], question: str, *, count: int = 2) -> list[str]:
    """The ``count`` sentences of ``told`` that SQLite's FTS5 ranks best for the question (BM25), in their order."""
    pieces = sentences(told)
    words = sorted(set(_WORD.findall(question.lower())))
    if not pieces or not words:
        return []
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE VIRTUAL TABLE told USING fts5(sentence, tokenize = 'porter unicode61')")
        database.executemany("INSERT INTO told (rowid, sentence) VALUES (?, ?)", enumerate(pieces, 1))
        found = database.execute(
            "SELECT rowid FROM told WHERE told MATCH ? ORDER BY rank LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), count),
        ).fetchall()
    return [pieces[at - 1] for at in sorted(row for (row,) in found)]


class Neighbours:
    """The label of the nearest text: cosine of TF-IDF over words, no learning.

    Args:
        of_letters: the texts are pictures of characters; what counts is which one stands where.
    """

    def __init__(self, *, of_letters: bool = False) -> None:
        self._of_letters = of_letters
        self._texts: list[tuple[Counter[str], str]] = []
        self._seen_in: Counter[str] = Counter()

    def add(self, text: str, label: str) -> None:
        """One labelled text more."""
        words = self._parts(text)
        self._texts.append((words, label))
        self._seen_in.update(words.keys())

    def label(self, text: str) -> str:
        """The label of the most similar text; "" while there are none."""
        asked = self._parts(text)
        best = max(self._texts, key=lambda known: self._cosine(asked, known[0]), default=None)
        return best[1] if best else ""

    def _parts(self, text: str) -> Counter[str]:
        if self._of_letters:
            return Counter(f"{at}{letter}" for at, letter in enumerate(text))
        return Counter(_WORD.findall(text.lower()))

    def _cosine(self, one: Counter[str], other: Counter[str]) -> float:
        shared = sum(one[word] * other[word] * self._weight(word) ** 2 for word in one.keys() & other.keys())
        sizes = [math.sqrt(sum((n * self._weight(word)) ** 2 for word, n in words.items())) for words in (one, other)]
        return shared / (sizes[0] * sizes[1]) if all(sizes) else 0.0

    def _weight(self, word: str) -> float:
        return math.log((1 + len(self._texts)) / (1 + self._seen_in[word])) + 1
