"""Facts that have to be put together: two hops, yes or no, how many, and what the base knows about the place named."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER, Episode, Question
from hope_serve.training.lessons.people import People
from hope_serve.training.lessons.relations import load_values, side
from hope_serve.training.lessons.wording import asked, filled
from hope_serve.training.personas import Split

_FILE = "joined.json"
_DOUBTS = (
    'Somebody says about me: "{x}" Is that so?', 'Is this true: "{x}"', 'True or not: "{x}"',
    'Did I tell you this: "{x}"', "{x} Is that right?",
)  # fmt: skip


class Joined:
    """Draws lessons whose questions need more than one thing at once.

    The last template of each kind, and values on the other side, are held out.
    """

    def __init__(self, split: Split, draw: random.Random) -> None:
        raw = json.loads(files("hope_serve.training.lessons").joinpath(_FILE).read_text("utf-8"))
        self._split, self._draw = split, draw
        self._hops: Sequence[Mapping[str, Any]] = _half(raw["hops"], split)
        self._places: Sequence[Mapping[str, Any]] = _half(raw["places"], split)
        self._lists: Sequence[Mapping[str, Any]] = _half(raw["lists"], split)
        self._known: Mapping[str, Mapping[str, str]] = raw["known"]
        self._pools = {name: side(values, split) for name, values in load_values().items()}
        self._check_pools()

    def episode(self, people: People, *, max_words: int) -> Episode:
        """A lesson of one such question, and plain facts beside it as far as ``max_words`` lets."""
        kinds = [self._hop, self._place, self._list]
        if max_words < 40:
            return self._doubt(people, max_words)
        if self._draw.random() < 0.3:
            return self._doubt(people, max_words)
        pieces, questions = self._draw.choice(kinds)()
        others = [
            people.known(r, people.value(r)) for r in people.choose(self._draw.randint(0, max(0, max_words // 30)))
        ]
        pieces += [people.tell(one.relation, one.value) for one in others]
        self._draw.shuffle(pieces)
        spare = max(0, max_words - sum(len(piece.split()) for piece in pieces))
        adapt = people.surround(pieces, int(spare * self._draw.random() * 0.5))
        rest = people.questions(others) if others else []
        return Episode(adapts=(adapt,), questions=(*questions, *rest))

    def hop(self) -> tuple[list[str], list[Question]]:
        """Two facts that meet in a name, and the question over both."""
        return self._hop()

    def place(self) -> tuple[list[str], list[Question]]:
        """A fact about a place, and a question about the place that the base can answer."""
        return self._place()

    def _hop(self) -> tuple[list[str], list[Question]]:
        one = self._draw.choice(self._hops)
        chosen = {slot: self._value(pool) for slot, pool in one["slots"].items()}
        pieces = [self._fill(self._draw.choice(texts), chosen) for texts in one["tellings"]]
        question = self._asked(self._fill(self._draw.choice(one["askings"]), chosen))
        answer = self._fill(one["answer"], chosen)
        wanted = chosen[one["wanted"]]
        if self._draw.random() < 0.3:
            gone = self._draw.randrange(len(pieces))
            del pieces[gone]
            return pieces, [Question(question, UNKNOWN_ANSWER, (), "untold")]
        return pieces, [Question(question, answer, (wanted,), "joined")]

    def _place(self) -> tuple[list[str], list[Question]]:
        one = self._draw.choice(self._places)
        table = self._known[one["table"]]
        value = self._draw.choice(side(tuple(table), self._split))
        chosen = {"v": value, "known": table[value]}
        question = self._asked(self._draw.choice(one["askings"]))
        return [self._fill(self._draw.choice(one["tellings"]), chosen)], [
            Question(question, self._fill(one["answer"], chosen), (chosen["known"],), "joined")
        ]

    def _list(self) -> tuple[list[str], list[Question]]:
        one = self._draw.choice(self._lists)
        count = self._draw.randint(1, 4)
        values = self._draw.sample(self._pools[one["pool"]], count)
        pieces = [self._draw.choice(one["tellings"]).replace("{v}", value) for value in values]
        number = ("one", "two", "three", "four")[count - 1]
        noun = one["one"] if count == 1 else one["many"]
        question = self._asked(self._draw.choice(one["askings"]))
        return pieces, [Question(question, f"You have {number} {noun}.", (number,), "joined")]

    def _doubt(self, people: People, max_words: int) -> Episode:
        """Facts, and for each whether what somebody says of it is so."""
        count = self._draw.randint(1, max(1, max_words // 20))
        known = [people.known(r, people.value(r)) for r in people.choose(count)]
        pieces = [people.tell(one.relation, one.value) for one in known]
        questions = []
        for one in known:
            right = self._draw.random() < 0.5
            value = one.value if right else people.value(one.relation, other_than=one.value)
            said = self._draw.choice(_DOUBTS).replace("{x}", filled(one.relation.tellings[1], value))
            questions.append(Question(said, f"{'Yes' if right else 'No'}. {one.answer}", (one.value,), "joined"))
            other = people.unknown_relation([k.relation for k in known], near=one.relation)
            said = self._draw.choice(_DOUBTS).replace("{x}", filled(other.tellings[1], people.value(other)))
            questions.append(Question(said, UNKNOWN_ANSWER, (), "untold"))
        return Episode(adapts=(people.surround(pieces, 0),), questions=tuple(questions))

    def _check_pools(self) -> None:
        wanted = {pool for one in self._hops for pool in one["slots"].values()} | {one["pool"] for one in self._lists}
        for pool in sorted(wanted):
            if len(self._pools.get(pool, ())) < 4:
                raise ValueError(f"{_FILE} names the pool {pool!r}, which holds fewer than 4 values on this side")

    def _value(self, pool: str) -> str:
        return self._draw.choice(self._pools[pool])

    def _asked(self, text: str) -> str:
        return asked(text, self._draw)

    def _fill(self, text: str, chosen: Mapping[str, str]) -> str:
        for slot, value in chosen.items():
            text = text.replace("{" + slot + "}", value)
        return text[:1].upper() + text[1:]


def _half(templates: Sequence[Mapping[str, Any]], split: Split) -> Sequence[Mapping[str, Any]]:
    """The last template of a kind is held out."""
    return templates[-1:] if split is Split.HELD_OUT else templates[:-1]
