"""Scenes: small everyday happenings in a person's own words, and what somebody would ask about them later.

A relation (``relations``) is one attribute with many wordings; a scene is one of very many things that happen, with
few. They are text files in ``scenes/``, a blank line between two scenes::

    x = lawnmower / kayak / drill          a slot and its values, or ``@pool``
    n = @man_name
    T: I swapped my {x} for {n}'s ladder.  a telling; every telling holds every slot
    T: {n} gave me his ladder for the {x}.
    Q: Who has my {x} now? | {n} has it.   a question and its answer, which holds a slot that the question does not
    C n: Not {old}, it was {n} who took it. told later: the slot's new value, maybe the old one and other slots
    E: The ladder broke. | Have I still got the ladder? | No, it broke.   told later, what is asked then, and the answer

Held out of training are whole scenes (by a hash of their first telling), the last telling of three or more, and values
(by a hash of their spelling).
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
_SLOT = re.compile(r"\{([a-z]|old)\}")
_OLD = "old"


class Asking(NamedTuple):
    """A question and its answer, with slots."""

    question: str
    answer: str


class Change(NamedTuple):
    """A later telling, after which ``slot`` has another value."""

    slot: str
    telling: str


class Ending(NamedTuple):
    """A later telling, after which the matter is over; what is asked then, and the answer."""

    telling: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """slots: the values of each; the rest: texts with ``{slot}`` in them."""

    slots: Mapping[str, tuple[str, ...]]
    tellings: tuple[str, ...]
    askings: tuple[Asking, ...]
    changes: tuple[Change, ...] = ()
    endings: tuple[Ending, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether no lesson of training tells it."""
        return zlib.crc32(self.tellings[0].lower().encode()) % SCENES_ONE_IN == 0


class Happened(NamedTuple):
    """A scene with the values that it has by now; ``changed``: the slot that had another; ``ending``: how it ended."""

    scene: Scene
    values: Mapping[str, str]
    changed: str = ""
    ending: Ending | None = None


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
        happened: list[Happened] = []
        moments: list[tuple[float, str]] = []
        for one in self.choose(num_scenes):
            at = self._draw.random()
            moments.append((at, self.tell(one)))
            later = self._later(one)
            if later:
                moments.append((self._draw.uniform(at, 1.2), later[0]))
            happened.append(later[1] if later else one)
        facts: list[Known] = []
        if self._draw.random() < FACTS_TOO:
            facts = [self._known(r) for r in self._people.choose(self._draw.randint(1, num_scenes))]
        moments += [(self._draw.random(), self._people.tell(one.relation, one.value)) for one in facts]
        pieces = [text for _, text in sorted(moments)]
        adapts = self._people.spread(pieces, max_words=max_words, max_adapts=max_adapts)
        return Episode(adapts=adapts, questions=tuple(self._questions(happened, facts)))

    def choose(self, count: int) -> list[Happened]:
        """Different scenes, each with values of its own."""
        return [self._happened(scene) for scene in self._draw.sample(self.scenes, min(count, len(self.scenes)))]

    def tell(self, one: Happened) -> str:
        """One telling."""
        return self._told(self._draw.choice(one.scene.tellings), one.values)

    def change(self, one: Happened) -> tuple[str, Happened] | None:
        """A later telling by which a slot has another value, and what is so then; None where the scene has none."""
        if not one.scene.changes:
            return None
        slot, telling = self._draw.choice(one.scene.changes)
        old = one.values[slot]
        new = self._draw.choice([v for v in one.scene.slots[slot] if v != old])
        after = one._replace(values={**one.values, slot: new}, changed=slot)
        return self._told(telling, {**after.values, _OLD: old}), after

    def end(self, one: Happened) -> tuple[str, Happened] | None:
        """A later telling by which the matter is over, and what is so then; None where the scene has none."""
        if not one.scene.endings:
            return None
        ending = self._draw.choice(one.scene.endings)
        return self._told(ending.telling, one.values), one._replace(ending=ending)

    def question(self, one: Happened) -> Question:
        """One of the scene's questions; of a scene that went on, one that its later telling answers."""
        if one.ending:
            return self._ended(one, one.ending)
        return self._question(one, self._draw.choice(_fitting(one)))

    def _later(self, one: Happened) -> tuple[str, Happened] | None:
        habits, chance = self._people.habits, self._draw.random()
        if chance < habits.correct / 2:
            return self.change(one)
        return self.end(one) if chance < (habits.correct + habits.end) / 2 else None

    def _questions(self, happened: Sequence[Happened], facts: Sequence[Known]) -> list[Question]:
        """Two questions a scene and one a fact, each beside one that nothing told answers."""
        found = []
        for one in happened:
            first = self._draw.choice(_fitting(one))
            if one.ending:
                found += [self._ended(one, one.ending), self._untold(happened, one, first)]
                continue
            second = self._draw.choice([asking for asking in one.scene.askings if asking != first])
            for asking in (first, second):
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
        kind = "corrected" if one.changed in values else "told"
        return Question(self._asked(asking.question, one.values), answer, spoken, kind)

    def _ended(self, one: Happened, ending: Ending) -> Question:
        values = {slot: to_listener(one.values[slot]) for slot in _SLOT.findall(ending.answer)}
        return Question(self._asked(ending.question, one.values), _filled(ending.answer, values), (), "ended")

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

    def _told(self, text: str, values: Mapping[str, str]) -> str:
        return _filled(told(text, self._draw) if self._noisy else text, values)

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
            that is missing in a telling, an answer without a slot or with one that its question gives away, a change
            that no question asks for.
    """
    slots: dict[str, tuple[str, ...]] = {}
    tellings: list[str] = []
    askings: list[Asking] = []
    changes: list[Change] = []
    endings: list[Ending] = []
    for line in block.split("\n"):
        if match := re.fullmatch(r"([a-z]) = (.+)", line):
            slots[match[1]] = _values(match[2].strip(), pools)
        elif line.startswith("T: "):
            tellings.append(line[3:])
        elif line.startswith("Q: ") and line.count(" | ") == 1:
            askings.append(Asking(*line[3:].split(" | ")))
        elif match := re.fullmatch(r"C ([a-z]): (.+)", line):
            changes.append(Change(match[1], match[2]))
        elif line.startswith("E: ") and line.count(" | ") == 2:
            endings.append(Ending(*line[3:].split(" | ")))
        else:
            raise ValueError(
                f"{line!r} is none of 'x = values', 'T: telling', 'Q: question | answer', 'C x: change' and "
                "'E: ending | question | answer'"
            )
    _check(slots, tellings, askings)
    _check_later(slots, askings, changes, endings)
    return Scene(
        slots=MappingProxyType(slots),
        tellings=tuple(tellings),
        askings=tuple(askings),
        changes=tuple(changes),
        endings=tuple(endings),
    )


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


def _check_later(
    slots: Mapping[str, tuple[str, ...]],
    askings: Sequence[Asking],
    changes: Sequence[Change],
    endings: Sequence[Ending],
) -> None:
    answered = {slot for asking in askings for slot in _SLOT.findall(asking.answer)}
    for slot, text in changes:
        found = set(_SLOT.findall(text))
        if slot not in found or found - set(slots) - {_OLD}:
            raise ValueError(
                f"the change {text!r} must hold the new {{{slot}}}, and besides it {{old}} and slots alone"
            )
        if slot not in answered:
            raise ValueError(f"no question asks for {slot}, which {text!r} changes")
    for ending in endings:
        if unknown := set(_SLOT.findall(" ".join(ending))) - set(slots):
            raise ValueError(f"the ending {ending.telling!r} holds {{{min(unknown)}}}, which the scene has not")


def _of_split(scene: Scene, split: Split) -> Scene:
    """The scene with what this side may use of it."""
    if split is Split.HELD_OUT:
        return scene
    slots = {slot: kept if len(kept := side(v, split)) > 1 else v for slot, v in scene.slots.items()}
    tellings = scene.tellings[:-1] if len(scene.tellings) > 2 else scene.tellings
    return replace(scene, slots=MappingProxyType(slots), tellings=tellings)


def _fitting(one: Happened) -> tuple[Asking, ...]:
    """What may be asked first: of a scene in which something changed, for that."""
    if not one.changed:
        return one.scene.askings
    return tuple(asking for asking in one.scene.askings if one.changed in _SLOT.findall(asking.answer))


def _filled(text: str, values: Mapping[str, str]) -> str:
    done = _SLOT.sub(lambda match: values[match[1]], text)
    return done[:1].upper() + done[1:] if text.startswith("{") else done
