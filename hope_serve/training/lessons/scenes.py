"""Lessons of scenes: what happened to people, what changed later, how it ended, and what they ask about it.

Held out of training are whole scenes (by a hash of their first telling), the last telling of three or more, and values
(by a hash of their spelling).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from hope_serve.training.lessons.lesson import OVER, UNKNOWN_ANSWER, Episode, Question
from hope_serve.training.lessons.people import Known, People
from hope_serve.training.lessons.relations import Relation, side
from hope_serve.training.lessons.scene import OLD, Asking, Ending, Scene, filled, load_scenes, slots_of
from hope_serve.training.lessons.wording import asked, before, to_listener, told
from hope_serve.training.personas import Split

WORDS_PER_SCENE = 20
"""About what one telling takes, for planning."""
FACTS_TOO, NEAR_MISS = 0.35, 0.4
"""How often facts of relations are told between the scenes; how often an untold question differs by a value alone."""
STILL, YES = 0.3, "Yes, as far as I know."
"""How often it is asked whether something that has not ended still is so, and the answer."""


class Happened(NamedTuple):
    """A scene with the values that it has by now.

    changed, old: the slot that had another value, and which; ending: how the matter ended.
    """

    scene: Scene
    values: Mapping[str, str]
    changed: str = ""
    old: str = ""
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
        new = self._draw.choice([v for v in one.scene.slots[slot] if v not in one.values.values()])
        after = one._replace(values={**one.values, slot: new}, changed=slot, old=old)
        return self._told(telling, {**after.values, OLD: old}), after

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
            if still := self._still(one):
                found += [still, self._untold(happened, one, second)]
        told_of = [one.relation for one in facts]
        for known in facts:
            found += [self._people.question(known), self._people.unknown(told_of, near=known.relation)]
        if self._draw.random() < self._people.habits.in_prompt:
            found.append(self._in_prompt([one.scene for one in happened]))
        return found

    def _still(self, one: Happened) -> Question | None:
        """Whether something is so that has not ended; None where nobody asks that."""
        whether = [ending for ending in one.scene.endings if ending.asks_whether and ending.answer.startswith("No,")]
        if not whether or one.changed or self._draw.random() >= STILL:
            return None
        return Question(self._asked(self._draw.choice(whether).question, one.values), YES)

    def _in_prompt(self, told_of: Sequence[Scene]) -> Question:
        """What was never told, but stands before the question."""
        while (one := self.choose(1)[0]).scene in told_of:
            continue
        return before(self.tell(one), self.question(one), self._draw)

    def _question(self, one: Happened, asking: Asking) -> Question:
        values = {slot: to_listener(one.values[slot]) for slot in slots_of(asking.answer)}
        answer = filled(asking.answer, values)
        spoken = tuple(v if v in answer else v[:1].upper() + v[1:] for v in values.values())
        kind = "corrected" if one.changed in values else "told"
        return Question(self._asked(asking.question, one.values), answer, spoken, kind)

    def _ended(self, one: Happened, ending: Ending) -> Question:
        values = {slot: to_listener(one.values[slot]) for slot in slots_of(ending.answer)}
        answer = filled(ending.answer, values)
        said = answer if ending.asks_whether else f"{OVER} {answer}"
        return Question(self._asked(ending.question, one.values), said, (), "ended", tuple(one.values.values()))

    def _untold(self, happened: Sequence[Happened], one: Happened, asking: Asking) -> Question:
        """The same question with another value in it where it has one, or a question about another scene."""
        slots = slots_of(asking.question)
        if slots and self._draw.random() < NEAR_MISS:
            slot = self._draw.choice(slots)
            was_told = {*one.values.values(), one.old}
            if others := [value for value in one.scene.slots[slot] if value not in was_told]:
                values = {**one.values, slot: self._draw.choice(others)}
                return Question(self._asked(asking.question, values), UNKNOWN_ANSWER, (), "untold")
        told_of = [each.scene for each in happened]
        while (other := self._draw.choice(self.scenes)) in told_of:
            continue
        text = self._draw.choice([a.question for a in other.askings] + [e.question for e in other.endings])
        return Question(self._asked(text, self._happened(other).values), UNKNOWN_ANSWER, (), "untold")

    def _happened(self, scene: Scene) -> Happened:
        chosen: dict[str, str] = {}
        for slot, values in scene.slots.items():  # two of one pool are of two people
            chosen[slot] = self._draw.choice([value for value in values if value not in chosen.values()] or values)
        return Happened(scene, chosen)

    def _known(self, relation: Relation) -> Known:
        return self._people.known(relation, self._people.value(relation))

    def _told(self, text: str, values: Mapping[str, str]) -> str:
        return filled(told(text, self._draw) if self._noisy else text, values)

    def _asked(self, text: str, values: Mapping[str, str]) -> str:
        return filled(asked(text, self._draw) if self._noisy else text, values)


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
    return tuple(asking for asking in one.scene.askings if one.changed in slots_of(asking.answer))
