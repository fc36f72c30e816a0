"""Scenes: small everyday happenings in a person's own words, and what somebody would ask about them later.

A relation (``relations``) is one attribute with many wordings; a scene is one of very many things that happen, with
few. They are text files in ``scenes/``, a blank line between two scenes::

    x = lawnmower / kayak / drill          a slot and its values, or ``@pool``
    n = @man_name
    T: I swapped my {x} for {n}'s ladder.  a telling; every telling holds every slot
    T: {n} gave me his ladder for the {x}.
    Q: Who has my {x} now? | {n} has it.   a question and its answer, which holds a slot that the question does not

Held out of training are whole scenes (by a hash of their first telling), the last telling of three or more, and values
(by a hash of their spelling).
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from hope_serve.training.lessons.lesson import UNKNOWN_ANSWER, Episode, Question
from hope_serve.training.lessons.people import Known, People
from hope_serve.training.lessons.relations import Relation, load_values, side
from hope_serve.training.lessons.wording import asked, before, to_listener, told
from hope_serve.training.personas import Split

SCENES_ONE_IN = 10
WORDS_PER_SCENE = 20
"""About what one telling takes, for planning."""
FACTS_TOO, NEAR_MISS = 0.35, 0.4
"""How often facts of relations are told between the scenes; how often an untold question differs by a value alone."""
_SLOT = re.compile(r"\{([a-z])\}")


class Asking(NamedTuple):
    """A question and its answer, with slots."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """slots: the values of each; tellings and askings: texts with ``{slot}`` in them."""

    slots: Mapping[str, tuple[str, ...]]
    tellings: tuple[str, ...]
    askings: tuple[Asking, ...]

    @property
    def held_out(self) -> bool:
        """Whether no lesson of training tells it."""
        return zlib.crc32(self.tellings[0].lower().encode()) % SCENES_ONE_IN == 0


class Happened(NamedTuple):
    """A scene with the values that it had."""

    scene: Scene
    values: Mapping[str, str]


class Scenes:
    """Draws lessons of scenes. The same seed gives the same lessons.

    Args:
        split: the training side of scenes, tellings and values; or scenes that no lesson tells, with any values.
        people: whose facts stand between the scenes, and whose prose around them.
    """

    def __init__(self, split: Split, people: People, draw: random.Random) -> None:
        self._draw, self._people, self._split = draw, people, split
        self._noisy = people.habits.noisy_words
        self.scenes = tuple(_of_split(one, split) for one in load_scenes() if one.held_out == (split is Split.HELD_OUT))

    def episode(self, num_scenes: int, *, max_words: int, max_adapts: int = 1) -> Episode:
        """Scenes, now and then with facts between them; as many untold questions as told ones."""
        happened = self.choose(num_scenes)
        facts: list[Known] = []
        if self._draw.random() < FACTS_TOO:
            facts = [self._known(r) for r in self._people.choose(self._draw.randint(1, num_scenes))]
        pieces = [self.tell(one) for one in happened]
        pieces += [self._people.tell(one.relation, one.value) for one in facts]
        self._draw.shuffle(pieces)
        adapts = self._people.spread(pieces, max_words=max_words, max_adapts=max_adapts)
        return Episode(adapts=adapts, questions=tuple(self._questions(happened, facts)))

    def choose(self, count: int) -> list[Happened]:
        """Different scenes, each with values of its own."""
        return [self._happened(scene) for scene in self._draw.sample(self.scenes, min(count, len(self.scenes)))]

    def tell(self, one: Happened) -> str:
        """One telling."""
        text = self._draw.choice(one.scene.tellings)
        return _filled(told(text, self._draw) if self._noisy else text, one.values)

    def question(self, one: Happened) -> Question:
        """One of the scene's questions."""
        return self._question(one, self._draw.choice(one.scene.askings))

    def _questions(self, happened: Sequence[Happened], facts: Sequence[Known]) -> list[Question]:
        """Two questions a scene and one a fact, each beside one that nothing told answers."""
        found = []
        for one in happened:
            for asking in self._draw.sample(one.scene.askings, min(2, len(one.scene.askings))):
                found += [self._question(one, asking), self._untold(happened, one, asking)]
        told_of = [one.relation for one in facts]
        for known in facts:
            found += [self._people.question(known), self._people.unknown(told_of, near=known.relation)]
        if self._draw.random() < self._people.habits.in_prompt:
            found.append(self._in_prompt([one.scene for one in happened]))
        return found

    def _in_prompt(self, told_of: Sequence[Scene]) -> Question:
        """What was never told, but stands before the question."""
        while (one := self.choose(1)[0]).scene in told_of:
            continue
        return before(self.tell(one), self.question(one), self._draw)

    def _question(self, one: Happened, asking: Asking) -> Question:
        values = {slot: to_listener(one.values[slot]) for slot in _SLOT.findall(asking.answer)}
        answer = _filled(asking.answer, values)
        spoken = tuple(v if v in answer else v[:1].upper() + v[1:] for v in values.values())
        return Question(self._asked(asking.question, one.values), answer, spoken)

    def _untold(self, happened: Sequence[Happened], one: Happened, asking: Asking) -> Question:
        """The same question with another value in it where it has one, or a question about another scene."""
        slots = _SLOT.findall(asking.question)
        if slots and self._draw.random() < NEAR_MISS:
            changed = self._draw.choice(slots)
            others = [v for v in one.scene.slots[changed] if v != one.values[changed]]
            values = {**one.values, changed: self._draw.choice(others)}
            return Question(self._asked(asking.question, values), UNKNOWN_ANSWER, (), "untold")
        told_of = [each.scene for each in happened]
        while (other := self._draw.choice(self.scenes)) in told_of:
            continue
        text = self._draw.choice(other.askings).question
        return Question(self._asked(text, self._happened(other).values), UNKNOWN_ANSWER, (), "untold")

    def _happened(self, scene: Scene) -> Happened:
        return Happened(scene, {slot: self._draw.choice(values) for slot, values in scene.slots.items()})

    def _known(self, relation: Relation) -> Known:
        return self._people.known(relation, self._people.value(relation))

    def _asked(self, text: str, values: Mapping[str, str]) -> str:
        return _filled(asked(text, self._draw) if self._noisy else text, values)


@cache
def load_scenes() -> tuple[Scene, ...]:
    """Every scene of this room's files.

    Raises:
        ValueError: a line or a scene is not of the form above; the message names the file and the scene.
    """
    pools = load_values()
    folder = files("hope_serve.training.lessons").joinpath("scenes")
    found = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        for number, block in enumerate(re.split(r"\n\s*\n", file.read_text("utf-8").strip()), 1):
            try:
                found.append(parse_scene(block, pools))
            except ValueError as error:
                raise ValueError(f"{file.name}, scene {number}: {error}") from error
    return tuple(found)


def parse_scene(block: str, pools: Mapping[str, tuple[str, ...]]) -> Scene:
    """One scene from its lines.

    Raises:
        ValueError: a line of no known form, a pool that is not there, too few tellings, questions or values, a slot
            that is missing in a telling, an answer without a slot or with one that its question gives away.
    """
    slots: dict[str, tuple[str, ...]] = {}
    tellings: list[str] = []
    askings: list[Asking] = []
    for line in block.split("\n"):
        if match := re.fullmatch(r"([a-z]) = (.+)", line):
            slots[match[1]] = _values(match[2].strip(), pools)
        elif line.startswith("T: "):
            tellings.append(line[3:])
        elif line.startswith("Q: ") and line.count(" | ") == 1:
            askings.append(Asking(*line[3:].split(" | ")))
        else:
            raise ValueError(f"{line!r} is none of 'x = values', 'T: telling' and 'Q: question | answer'")
    _check(slots, tellings, askings)
    return Scene(slots=MappingProxyType(slots), tellings=tuple(tellings), askings=tuple(askings))


def _values(text: str, pools: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if not text.startswith("@"):
        return tuple(value.strip() for value in text.split(" / "))
    if text[1:] not in pools:
        raise ValueError(f"no pools_*.json holds the pool {text[1:]!r}")
    return pools[text[1:]]


def _check(slots: Mapping[str, tuple[str, ...]], tellings: Sequence[str], askings: Sequence[Asking]) -> None:
    if len(tellings) < 2 or len(askings) < 2:
        raise ValueError(f"it has {len(tellings)} tellings and {len(askings)} questions; two of each at least")
    for slot, values in slots.items():
        if len(set(values)) < 6 or "" in values:
            raise ValueError(f"slot {slot} has {len(set(values))} different values; six at least, none of them empty")
    for text in tellings:
        if set(_SLOT.findall(text)) != set(slots):
            raise ValueError(f"the telling {text!r} does not hold exactly the slots {sorted(slots)}")
    for question, answer in askings:
        given, wanted = set(_SLOT.findall(question)), set(_SLOT.findall(answer))
        if not wanted or wanted & given or (wanted | given) - set(slots):
            raise ValueError(f"the answer {answer!r} must hold a slot of the scene that {question!r} does not")


def _of_split(scene: Scene, split: Split) -> Scene:
    """The scene with what this side may use of it."""
    if split is Split.HELD_OUT:
        return scene
    slots = {slot: kept if len(kept := side(v, split)) > 1 else v for slot, v in scene.slots.items()}
    tellings = scene.tellings[:-1] if len(scene.tellings) > 2 else scene.tellings
    return Scene(slots=MappingProxyType(slots), tellings=tellings, askings=scene.askings)


def _filled(text: str, values: Mapping[str, str]) -> str:
    done = _SLOT.sub(lambda match: values[match[1]], text)
    return done[:1].upper() + done[1:] if text.startswith("{") else done
