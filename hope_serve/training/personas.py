"""People who do not exist: facts about them in natural English, and the questions that show who remembers.

Every value belongs for good to one side of the split: what a checkpoint trains on never holds a held-out value.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

MONTHS = tuple(
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
HELD_OUT_ONE_IN = 5
LEADS = ("", "", "", "", "Also, ", "By the way, ", "Oh, and ", "Just so you know, ", "One more thing: ", "Well, ")
OPENINGS = ("", "", "", "Hi! ", "Hello there. ", "Let me tell you about myself. ", "Good morning. ", "Hey. ")
ASIDES = (
    "It is raining here today. ",
    "I had a long day. ",
    "I hope you are well. ",
    "Thank you for listening. ",
    "That is all for now. ",
    "It has been a busy week. ",
)


class Split(Enum):
    """Which values a person may have."""

    TRAIN = "train"
    HELD_OUT = "held_out"


class Attribute(NamedTuple):
    """One thing that can be known of somebody."""

    key: str
    values: tuple[str, ...]
    facts: tuple[str, ...]
    updates: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """An attribute's value for one person, and how it is told, asked and answered."""

    key: str
    value: str
    statement: str
    question: str
    answer: str


class PersonaFactory:
    """Draws people. The same seed gives the same people.

    Args:
        split: which values they may have.
        seed: of the draw.
        invented: the share of values replaced by invented words of the same kind, so that a model learns to
            remember spellings it never saw instead of a list.
    """

    def __init__(self, split: Split, *, seed: int, invented: float = 0.0) -> None:
        self._split = split
        self._invented = invented
        self.draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret
        self._pools = {name: _side(words, split) for name, words in load_pools().items()}
        self.attributes = load_attributes()

    def facts(self, count: int, *, avoid: frozenset[str] = frozenset()) -> list[Fact]:
        """``count`` facts about different attributes, none of those in ``avoid``."""
        chosen = self.draw.sample([a for a in self.attributes if a.key not in avoid], count)
        return [self._fact(attribute, attribute.facts) for attribute in chosen]

    def name(self) -> str:
        """A first name, alone or with a surname."""
        last = f" {self._word('surname')}" if self.draw.random() < 0.3 else ""
        return self._word("first_name") + last

    def corrected(self, fact: Fact) -> Fact:
        """The same attribute with another value, told as news."""
        attribute = next(a for a in self.attributes if a.key == fact.key)
        while (new := self._fact(attribute, attribute.updates)).value == fact.value:
            continue
        return new

    def unknown(self, known: list[Fact]) -> Fact:
        """A fact about an attribute that none of ``known`` has; only its question is of use."""
        return self.facts(1, avoid=frozenset(f.key for f in known))[0]

    def reworded(self, fact: Fact) -> Fact:
        """The same fact asked in other words."""
        attribute = next(a for a in self.attributes if a.key == fact.key)
        return replace(fact, question=self.draw.choice(attribute.questions))

    def monologue(self, facts: list[Fact]) -> str:
        """The facts as one person would tell them."""
        draw = self.draw
        text = draw.choice(OPENINGS)
        for fact in facts:
            text += _led(draw.choice(LEADS), fact.statement) + " "
            if draw.random() < 0.08:
                text += draw.choice(ASIDES)
        return text.strip()

    def _fact(self, attribute: Attribute, wordings: tuple[str, ...]) -> Fact:
        value = self._value(self.draw.choice(attribute.values))
        fill = {"v": value, "a_v": f"{'an' if value[0].lower() in 'aeiou' else 'a'} {value}"}
        return Fact(
            key=attribute.key,
            value=value,
            statement=self.draw.choice(wordings).format(**fill),
            question=self.draw.choice(attribute.questions),
            answer=attribute.answer.format(**fill),
        )

    def _value(self, shape: str) -> str:
        if shape == "{number}":
            return self._number(10, 9999)
        if shape == "{month} {day}":
            while not self._mine(value := f"{self.draw.choice(MONTHS)} {self.draw.randint(1, 28)}"):
                continue
            return value
        words = {name: self._word(name) for name in self._pools}
        words |= {"Adjective": self._word("adjective").title(), "Noun": self._word("noun").title()}
        return shape.replace("{surname} and {surname}", "{surname} and {second}").format(
            **words, second=self._word("surname")
        )

    def _word(self, pool: str) -> str:
        if self.draw.random() >= self._invented:
            return self.draw.choice(self._pools[pool])
        word = self._spelling()
        return word.title() if self._pools[pool][0][0].isupper() else word

    def _number(self, low: int, high: int) -> str:
        while not self._mine(value := str(self.draw.randint(low, high))):
            continue
        return value

    def _mine(self, value: str) -> bool:
        return is_held_out(value) == (self._split is Split.HELD_OUT)

    def _spelling(self) -> str:
        """A word nobody uses."""
        draw = self.draw
        syllables = draw.choice((1, 2, 2, 2, 3))
        word = "".join(draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(syllables)) + draw.choice(_CODAS)
        return word if self._mine(word) else self._spelling()


def is_held_out(value: str) -> bool:
    """Whether a value is kept from training; a fixed property of its spelling."""
    return zlib.crc32(value.lower().encode()) % HELD_OUT_ONE_IN == 0


def load_pools() -> Mapping[str, tuple[str, ...]]:
    """Every pool of single values."""
    raw = json.loads(files("hope_serve.training").joinpath("pools.json").read_text())
    return MappingProxyType({k: tuple(v.split("|") if "|" in v else v.split()) for k, v in raw.items()})


def load_attributes() -> tuple[Attribute, ...]:
    """Every attribute, families spelled out."""
    raw = json.loads(files("hope_serve.training").joinpath("attributes.json").read_text())
    return tuple(_attribute(family, item) for family in raw for item in family["items"])


def _attribute(family: dict[str, str], item: str) -> Attribute:
    name, _, pool = item.partition(":")

    def spell(texts: list[str] | str) -> tuple[str, ...]:
        return tuple(text.replace("{x}", name) for text in texts)

    shapes = ("{" + pool + "}",) if pool else tuple(family["value"].split("|"))
    return Attribute(
        key=name,
        values=shapes,
        facts=spell(family["facts"]),
        updates=spell(family["updates"]),
        questions=spell(family["questions"]),
        answer=spell([family["answer"]])[0],
    )


def _side(words: tuple[str, ...], split: Split) -> list[str]:
    return [word for word in words if is_held_out(word) == (split is Split.HELD_OUT)]


def _led(lead: str, statement: str) -> str:
    keeps_capital = not lead or statement.startswith("I ")
    return lead + (statement if keeps_capital else statement[0].lower() + statement[1:])


_ONSETS = (*"bcdfghjklmnprstvwz", "br", "cr", "dr", "fl", "gl", "gr", "kr", "pl", "sh", "sk", "st", "th", "tr")
_VOWELS = (*"aeiouaeiou", "ai", "ea", "ee", "ie", "oa", "oo", "ou")
_CODAS = ("", "", "", "l", "m", "n", "nd", "r", "rk", "s", "st", "t", "x", "ck", "lin", "ton", "rik", "va", "ra")
