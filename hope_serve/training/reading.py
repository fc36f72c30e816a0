"""Rows of text whose context must be read: what comes later can only be told by what stands before it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from hope_serve.api import Message
from hope_serve.tokenizer import Tokenizer
from hope_serve.training.lessons.completions import FINISH
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.personas import Fact, PersonaFactory

AGAIN_WEIGHT, ANSWER_WEIGHT = 2.0, 3.0
"""What a token counts that the context tells, beside 1 for a token of plain text."""
ANYWHERE, BEHIND_OTHERS = 0.5, 0.35
"""How many rows do not begin as a document does, and how many begin with text that nothing asks for."""
LONG = 256
"""Tokens from which on a row has room for questions."""
FIRST_WORD = 300
"""Ids below are marks and single bytes."""
_WORDS_A_TOKEN = 0.7


class Row(NamedTuple):
    """Ids of one row, and what each of them counts as a target."""

    ids: list[int]
    weights: list[float]

    def add(self, ids: list[int], weight: float = 1.0) -> None:
        """Go on with ``ids``."""
        self.ids.extend(ids)
        self.weights.extend([weight] * len(ids))


class Reading:
    """Draws rows to be read, of six kinds.

    Args:
        window: gives that many consecutive ids of plain text.
        prose: None leaves out the kinds that need sentences.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        people: PersonaFactory,
        window: Callable[[int], list[int]],
        prose: Prose | None,
    ) -> None:
        self._tokenizer, self._people, self._window, self._prose = tokenizer, people, window, prose
        self._draw: random.Random = people.draw

    def row(self, tokens: int) -> Row:
        """A row of exactly ``tokens`` ids, of a kind drawn at random."""
        kinds = [(self.repeated, 5), (self.echo, 3), (self.pairs, 2)]
        if tokens >= LONG:
            kinds += [(self.register, 2)]
        if tokens >= LONG and self._prose:
            kinds += [(self.passage, 3), (self.sentences_again, 2)]
        kind = self._draw.choices([k for k, _ in kinds], [share for _, share in kinds])[0]
        row = self._beginning(tokens)
        while len(row.ids) < tokens:
            kind(row, tokens - len(row.ids))
        return Row(row.ids[:tokens], row.weights[:tokens])

    def _beginning(self, tokens: int) -> Row:
        """The mark of a document, or the middle of one; in a third of the rows other text besides, up to half the row.

        A model that never saw a context without the mark, or a full memory, reads nothing there.
        """
        row = Row([self._tokenizer.doc], [0.0])
        if self._draw.random() < ANYWHERE:
            row = Row(self._window(2)[1:], [0.0])
        if self._draw.random() < BEHIND_OTHERS:
            row.add(self._window(self._draw.randint(1, max(1, tokens // 2))))
        return row

    def repeated(self, row: Row, room: int) -> None:
        """A span of plain text, other text, the same span again, once or twice."""
        length = self._draw.randint(8, max(9, min(160, room // 2)))
        span = self._window(length)
        row.add(span)
        for _ in range(self._draw.choice((1, 1, 2))):
            gap = self._draw.choice((0, self._draw.randint(1, 30), self._draw.randint(1, max(2, min(250, room // 2)))))
            if gap:
                row.add(self._window(gap))
            # Which words come first again is anybody's guess.
            row.add(span[:2])
            row.add(span[2:], AGAIN_WEIGHT)

    def echo(self, row: Row, room: int) -> None:
        """Random words, then the same again: the context alone tells them, so this teaches to look there."""
        words = self._draw.choices(range(FIRST_WORD, self._tokenizer.vocab_size), k=self._draw.randint(4, 48))
        row.add(words, 0.0)
        for _ in range(max(1, min(3, room // (2 * len(words))))):
            row.add(words[:1], 0.0)
            row.add(words[1:], AGAIN_WEIGHT)

    def pairs(self, row: Row, room: int) -> None:
        """Words in pairs, then every first word asked for its second, in another order."""
        count = max(1, min(self._draw.randint(4, 64), room // 4))
        words = self._draw.sample(range(FIRST_WORD, self._tokenizer.vocab_size), min(2 * count, 3000))
        pairs = [words[i : i + 2] for i in range(0, len(words) - 1, 2)]
        for pair in pairs:
            row.add(pair, 0.0)
        for key, value in self._draw.sample(pairs, len(pairs)):
            row.add([key], 0.0)
            row.add([value], AGAIN_WEIGHT)

    def register(self, row: Row, room: int) -> None:
        """What several people say of themselves, each by a name, then questions about them by their names."""
        told: list[tuple[str, Fact]] = []
        for _ in range(max(1, min(self._draw.randint(2, 10), room // 60))):
            name = self._people.name()
            for fact in self._people.facts(self._draw.randint(1, 3)):
                row.add(self._tokenizer.encode(f"{name}: {fact.statement}\n"))
                told.append((name, fact))
        for name, fact in self._draw.sample(told, len(told)):
            before, value, after = fact.answer.partition(fact.value)
            row.add(self._tokenizer.encode(f"Ask {name}: {fact.question}\n{before.rstrip()}"))
            row.add(self._tokenizer.encode(" " * before.endswith(" ") + value), ANSWER_WEIGHT)
            row.add(self._tokenizer.encode(f"{after}\n"))

    def passage(self, row: Row, room: int) -> None:
        """A passage in a turn, then questions how its sentences went on."""
        words = int(min(room * 0.6, self._draw.randint(40, 600)) * _WORDS_A_TOKEN)
        sentences = self._sentences(words)
        row.add(self._turn("user", " ".join(sentences)))
        row.add(self._turn("assistant", "I have read it."))
        for sentence in self._draw.sample(sentences, min(len(sentences), 6)):
            parts = sentence.split()
            at = self._draw.randint(3, max(3, len(parts) // 2))
            if len(parts) <= at:
                continue
            asked = self._draw.choice(FINISH).replace("{x}", " ".join(parts[:at]))
            row.add(self._turn("user", asked))
            row.add(self._turn("assistant", " ".join(parts[at:])), ANSWER_WEIGHT)

    def sentences_again(self, row: Row, room: int) -> None:
        """Sentences of plain text, then some of them again with others between."""
        sentences = self._sentences(int(min(room * 0.4, 400) * _WORDS_A_TOKEN))
        row.add(self._tokenizer.encode(" ".join(sentences)))
        for sentence in self._draw.sample(sentences, len(sentences)):
            ids = self._tokenizer.encode(" " + sentence)
            row.add(ids[:3])
            row.add(ids[3:], AGAIN_WEIGHT)

    def _sentences(self, words: int) -> list[str]:
        assert self._prose is not None
        found: list[str] = []
        while not found or sum(len(s.split()) for s in found) < words:
            found += self._prose.sentences(8, least_words=4, most_words=40)
        return found

    def _turn(self, role: str, text: str) -> list[int]:
        return self._tokenizer.encode_turn(Message(role=role, text=text))
