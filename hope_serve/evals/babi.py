"""``babi``: small stories and one question each, in five kinds after bAbI's qa1 to qa5, in this project's own words.

1 one fact, 2 two facts (a thing where its carrier is), 3 three facts (where a thing was before), 4 two rooms and a
direction, 5 who gave what to whom.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from hope_serve.evals.arms import BM25, MEMORY, NEITHER, PROMPT
from hope_serve.evals.exam import Exam
from hope_serve.evals.report import Report
from hope_serve.evals.subject import Subject
from hope_serve.evals.suite import failures_of, on_what
from hope_serve.training.lessons.cases import Case, Row
from hope_serve.training.lessons.judge import Judge, holds_value
from hope_serve.training.lessons.lesson import Adapt, Question

PEOPLE = ("Mia", "Omar", "Lena", "Tom", "Ruth", "Ivo")
ROOMS = ("kitchen", "garden", "cellar", "attic", "office", "hall", "library", "garage")
THINGS = ("lamp", "ball", "book", "apple", "key", "cup")
WENT = ("{p} walked into the {r}.", "{p} went to the {r}.", "{p} is in the {r} now.", "Then {p} moved to the {r}.")
TOOK = ("{p} picked up the {t}.", "{p} took the {t} along.", "{p} carries the {t}.")
LEFT = ("{p} put the {t} down.", "{p} left the {t} there.")
GAVE = ("{p} handed the {t} to {q}.", "{p} gave {q} the {t}.", "{p} passed the {t} on to {q}.")
SIDES = ("north", "south", "east", "west")
STORY_LINES = 8
QUESTIONS = 100


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happens, what is asked, the answer, and what else the answer might have been."""

    lines: tuple[str, ...]
    question: str
    answer: str
    candidates: tuple[str, ...]


class Stories:
    """Draws stories. The same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - a reproducible draw, nothing secret

    @property
    def kinds(self) -> tuple[tuple[str, Callable[[], Story]], ...]:
        """Every kind by its name."""
        return (
            ("1: one fact", self.where_is_one),
            ("2: two facts", self.where_is_thing),
            ("3: three facts", self.where_was_thing),
            ("4: two rooms and a direction", self.what_lies_there),
            ("5: who gave what to whom", self.who_gave),
        )

    def where_is_one(self) -> Story:
        """People walk about; where is one of them?"""
        lines, places = self._walks(STORY_LINES, PEOPLE[:4])
        person = self._draw.choice(sorted(places))
        return Story(lines=tuple(lines), question=f"Where is {person}?", answer=places[person], candidates=ROOMS)

    def where_is_thing(self) -> Story:
        """Somebody takes a thing along; where is it?"""
        person, thing = self._draw.choice(PEOPLE[:3]), self._draw.choice(THINGS)
        before, _ = self._walks(2, PEOPLE[:3])
        lines = [*before, self._went(person, room := self._room()), self._say(TOOK, p=person, t=thing)]
        room = self._room(room)
        lines.append(self._went(person, room))
        if self._draw.random() < 0.5:
            lines += [self._say(LEFT, p=person, t=thing), self._went(person, self._room(room))]
        others = [other for other in PEOPLE[:3] if other != person]
        lines += [self._went(self._draw.choice(others), self._room(room)) for _ in range(2)]
        return Story(lines=tuple(lines), question=f"Where is the {thing}?", answer=room, candidates=ROOMS)

    def where_was_thing(self) -> Story:
        """A thing is carried through rooms; where was it before the last of them?"""
        person, thing = self._draw.choice(PEOPLE[:3]), self._draw.choice(THINGS)
        rooms = self._draw.sample(ROOMS, 3)
        lines = [self._went(person, rooms[0]), self._say(TOOK, p=person, t=thing)]
        for room in rooms[1:]:
            lines += [self._went(person, room), self._went(self._other(person), self._room(room))]
        question = f"Where was the {thing} before it came to the {rooms[2]}?"
        return Story(lines=tuple(lines), question=question, answer=rooms[1], candidates=ROOMS)

    def what_lies_there(self) -> Story:
        """Rooms lie in directions of each other; what lies there, or of what?"""
        middle, one, other = self._draw.sample(ROOMS, 3)
        side, far = self._draw.sample(SIDES, 2)
        lines = [f"The {one} lies {side} of the {middle}.", f"The {other} lies {far} of the {middle}."]
        self._draw.shuffle(lines)
        if self._draw.random() < 0.5:
            return Story(
                lines=tuple(lines), question=f"What lies {side} of the {middle}?", answer=one, candidates=ROOMS
            )
        return Story(
            lines=tuple(lines), question=f"Of which room is the {other} {far}?", answer=middle, candidates=ROOMS
        )

    def who_gave(self) -> Story:
        """Things change hands; one hand or thing of it is asked for."""
        giver, taker, third = self._draw.sample(PEOPLE, 3)
        thing, other = self._draw.sample(THINGS, 2)
        deals = [self._say(GAVE, p=giver, t=thing, q=taker), self._say(GAVE, p=third, t=other, q=giver)]
        self._draw.shuffle(deals)
        lines, _ = self._walks(2, (giver, third))
        question, answer, candidates = self._draw.choice(
            [
                (f"Who gave the {thing} away?", giver, PEOPLE),
                (f"Who was given the {thing}?", taker, PEOPLE),
                (f"What did {giver} give to {taker}?", thing, THINGS),
            ]
        )
        return Story(lines=(*lines, *deals), question=question, answer=answer, candidates=candidates)

    def _walks(self, count: int, people: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Lines, and where everybody is in the end."""
        lines: list[str] = []
        places: dict[str, str] = {}
        for _ in range(count):
            person = self._draw.choice(people)
            places[person] = self._room(places.get(person, ""))
            lines.append(self._went(person, places[person]))
        return lines, places

    def _went(self, person: str, room: str) -> str:
        return self._say(WENT, p=person, r=room)

    def _say(self, texts: Sequence[str], **words: str) -> str:
        return self._draw.choice(texts).format(**words)

    def _room(self, other_than: str = "") -> str:
        return self._draw.choice([room for room in ROOMS if room != other_than])

    def _other(self, person: str) -> str:
        return self._draw.choice([other for other in PEOPLE[:4] if other != person])


@dataclass(frozen=True, kw_only=True)
class Babi:
    """Options. ``scale``: of the number of stories a kind; 1 takes 100."""

    scale: float = 1.0
    seed: int = 7
    name: str = "babi"

    async def run(self, subject: Subject, _source: Subject | None) -> Report:
        """See ``Suite``."""
        stories = Stories(self.seed)
        count = max(2, round(QUESTIONS * self.scale))
        rows = [_row(name, [tell() for _ in range(count)]) for name, tell in stories.kinds]
        exam = Exam(subject, (MEMORY, PROMPT, BM25, NEITHER))
        table = await exam.table("Small stories", rows, note=_NOTE)
        return Report(
            suite=self.name,
            model=on_what(subject),
            settings=asdict(self),
            tables=(table,),
            failures=failures_of(subject),
        )


def _row(name: str, stories: Sequence[Story]) -> Row:
    cases = [
        Case(
            adapts=(Adapt(text=" ".join(story.lines)),),
            asked=(Question(story.question, story.answer, (story.answer,)),),
        )
        for story in stories
    ]
    return Row(name=name, cases=tuple(cases), judge=alone_among({story.candidates for story in stories}))


def alone_among(kinds: set[tuple[str, ...]]) -> Judge:
    """Right is a reply that holds the value and no other word of its kind, but those of the question."""

    def judge(question: Question, said: str) -> bool:
        others = [
            word
            for kind in kinds
            if question.values[0] in kind
            for word in kind
            if word != question.values[0] and word not in question.prompt
        ]
        named = (Question("", "", (word,)) for word in others)
        return holds_value(question, said) and not any(holds_value(other, said) for other in named)

    return judge


_NOTE = "Right is a reply that names the answer, and no other person, room or thing of its kind."
