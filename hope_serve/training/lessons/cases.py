"""Cases of an evaluation: what held-out people told, what they are asked, and which answers are right.

Whoever can teach and ask may run them: the trainer on tensors, ``hope-serve eval recall`` on a running server.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from hope_serve.training.lessons.joined import Joined
from hope_serve.training.lessons.judge import Judge, abstains, holds_any, holds_value, says_ended
from hope_serve.training.lessons.lesson import Adapt, Question
from hope_serve.training.lessons.people import Habits, Known, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.lessons.scenes import Happened, Scenes
from hope_serve.training.personas import Split

NOISE_TOKENS = 220
CHARACTERS_PER_TOKEN = 4
PLAIN = Habits(correct=0, end=0, prose=0, turns=0, noisy_words=False)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One person: what was told, and what is asked."""

    adapts: tuple[Adapt, ...]
    asked: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: the share of all cases' questions whose answer the judge finds to be so.

    low_is_good: the judge looks for what should not be said.
    """

    name: str
    cases: tuple[Case, ...]
    judge: Judge
    low_is_good: bool = False


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many people each figure is taken over, and after how much other text the oldest facts are asked.

    asked: at most so many questions to somebody who told dozens of facts.
    """

    people: int = 100
    later_people: int = 8
    asked: int = 40
    noise_tokens: tuple[int, ...] = (8192,)

    @classmethod
    def scaled(cls, share: float, noise_tokens: tuple[int, ...] = (8192,)) -> Sizes:
        """Sizes for a quicker look."""
        return cls(
            people=max(2, int(100 * share)),
            later_people=max(1, int(8 * share)),
            asked=max(4, int(40 * min(1.0, 4 * share))),
            noise_tokens=tuple(max(NOISE_TOKENS, int(tokens * min(1.0, share))) for tokens in noise_tokens),
        )


class CaseBook:
    """Draws the rows of the table of what a memory is worth. The same draw gives the same rows.

    Args:
        prose: for what is told around the facts and after them.
        draw: the source of chance.
    """

    def __init__(self, prose: Prose, draw: random.Random, *, sizes: Sizes) -> None:
        self._prose, self._draw, self._sizes = prose, draw, sizes
        self._people = People(Split.HELD_OUT, prose, draw, habits=PLAIN)
        self._new = People(Split.HELD_OUT, prose, draw, habits=PLAIN, new_relations=True)
        self._joined = Joined(Split.HELD_OUT, draw)
        self._scenes = Scenes(Split.HELD_OUT, self._people, draw)

    def rows(self) -> Iterator[Row]:
        """Every row, drawn when it is wanted."""
        groups = (
            self.recall,
            self.happened,
            self.everyday,
            self.amid_prose,
            self.never_told,
            self.changed,
            self.put_together,
            self.much,
            self.later,
            self.went_on,
        )
        for group in groups:
            yield from group()

    def recall(self) -> list[Row]:
        """One, four and eight facts in one adaptation; four of relations that no lesson is about."""
        people = self._sizes.people
        rows = []
        for count in (1, 4, 8):
            cases = [self.facts(count) for _ in range(max(2, 2 * people // count))]
            rows.append(_row(f"recall {count}", cases, holds_value))
        new = [self._facts(self._new, 4) for _ in range(max(1, people // 2))]
        return [*rows, _row("recall 4, new relations", new, holds_value)]

    def happened(self) -> list[Row]:
        """Four scenes that no lesson tells, asked for in the person's own words."""
        cases = []
        for _ in range(max(2, self._sizes.people // 2)):
            scenes = self._scenes.choose(4)
            adapt = self._people.surround([self._scenes.tell(one) for one in scenes], 0)
            cases.append(Case(adapts=(adapt,), asked=tuple(self._scenes.question(one) for one in scenes)))
        return [
            _row("four scenes, none in a lesson", cases, holds_value),
            _row("scenes told, but refused", cases, abstains, low_is_good=True),
        ]

    def everyday(self) -> list[Row]:
        """Sentences written by hand, no templates: all of a person's told at once, and a few asked for."""
        people = json.loads(files("hope_serve.training.lessons").joinpath("everyday.json").read_text("utf-8"))
        told, untold = [], []
        for person in people[: max(2, self._sizes.people // 5)]:
            adapts = (Adapt(text=" ".join(person["sentences"])),)
            asked = [accepting(one["ask"], one["accept"]) for one in person["questions"]]
            told.append(Case(adapts=adapts, asked=tuple(q for q in asked if q.values)))
            untold.append(Case(adapts=adapts, asked=tuple(q for q in asked if not q.values)))
        return [
            _row("everyday, 12 sentences told", told, holds_any),
            _row("everyday, told but refused", told, abstains, low_is_good=True),
            _row("everyday, never told, says so", untold, abstains),
        ]

    def amid_prose(self) -> list[Row]:
        """One fact amid other people's sentences."""
        return [
            _row(
                f"recall 1 amid {words} words",
                [self.facts(1, words=words) for _ in range(self._sizes.people)],
                holds_value,
            )
            for words in (60, 200)
        ]

    def never_told(self) -> list[Row]:
        """Asked for what nobody told, for another owner's value and for a stranger's facts."""
        lists = [self._known(4) for _ in range(max(2, self._sizes.people // 2))]
        told = [self._told(known) for known in lists]
        untold = [
            Case(adapts=case.adapts, asked=tuple(self._people.unknown([k.relation for k in known]) for _ in range(4)))
            for case, known in zip(told, lists, strict=True)
        ]
        neighbours = zip(told, told[1:] + told[:1], strict=True)
        strange = [Case(adapts=mine.adapts, asked=other.asked) for mine, other in neighbours]
        others = [
            other
            for case, known in zip(told, lists, strict=True)
            if (other := self._other_owner(case, known)) is not None
        ]
        return [
            _row("never told, says so", untold, abstains),
            _row("told, but refused", told, abstains, low_is_good=True),
            _row("another owner's value", others, holds_value, low_is_good=True),
            _row("another owner: says so", others, abstains),
            _row("a stranger's facts", strange, holds_value, low_is_good=True),
        ]

    def changed(self) -> list[Row]:
        """Four facts, and one of them corrected or ended in a second adaptation."""
        corrected: list[Case] = []
        ended: list[Case] = []
        for _ in range(max(1, self._sizes.people // 2)):
            known = self._known(4)
            first = self._told(known)
            for change, cases in ((self._people.correct, corrected), (self._people.end, ended)):
                changed = next((found for one in known if (found := change(one))), None)
                if changed:
                    second = self._people.surround([changed[0]], 0)
                    cases.append(Case(adapts=(*first.adapts, second), asked=(self._people.question(changed[1]),)))
        return [_row("corrected", corrected, holds_value), _row("ended", ended, says_ended)]

    def put_together(self) -> list[Row]:
        """Two facts that meet in a name; a fact and what the base knows."""
        rows = []
        for name, draw in (("two hops", self._joined.hop), ("joined with knowledge", self._joined.place)):
            cases: list[Case] = []
            for _ in range(max(1, self._sizes.people // 2)):
                pieces, questions = draw()
                if questions[0].kind == "joined":
                    cases.append(Case(adapts=(Adapt(text=" ".join(pieces)),), asked=tuple(questions)))
            rows.append(_row(name, cases, holds_value))
        return rows

    def much(self) -> list[Row]:
        """A hundred facts in one adaptation, some of them asked for."""
        cases = []
        for _ in range(max(1, self._sizes.people // 25)):
            case = self.facts(100)
            cases.append(Case(adapts=case.adapts, asked=self._some(case.asked)))
        return [_row("recall 100", cases, holds_value)]

    def later(self) -> list[Row]:
        """32 facts over 8 adaptations, at once and after other text."""
        cases, firsts = [], []
        for _ in range(self._sizes.later_people):
            known = self._known(32)
            parts = [self._told(known[at : at + 4]) for at in range(0, len(known), 4)]
            adapts, asked = (tuple(a for p in parts for a in p.adapts), tuple(q for p in parts for q in p.asked))
            cases.append(Case(adapts=adapts, asked=self._some(asked)))
            firsts.append(parts[0].asked)
        rows = [_row("recall 32 over 8", cases, holds_value)]
        for tokens in self._sizes.noise_tokens:
            aged = [
                Case(adapts=(*case.adapts, *self._noise(tokens)), asked=first)
                for case, first in zip(cases, firsts, strict=True)
            ]
            rows.append(_row(f"oldest of these after {tokens} tokens", aged, holds_value))
        return rows

    def went_on(self) -> list[Row]:
        """Four scenes that no lesson tells; one of them changes later, or comes to its end."""
        corrected: list[Case] = []
        ended: list[Case] = []
        for _ in range(self._sizes.people):
            scenes = self._scenes.choose(4)
            first = self._people.surround([self._scenes.tell(one) for one in scenes], 0)
            for change, cases in ((self._scenes.change, corrected), (self._scenes.end, ended)):
                changed = next(
                    (found for one in scenes if (found := change(one)) and not _asks_whether(found[1])), None
                )
                if changed:
                    second = self._people.surround([changed[0]], 0)
                    cases.append(Case(adapts=(first, second), asked=(self._scenes.question(changed[1]),)))
        return [_row("scenes corrected", corrected, holds_value), _row("scenes ended", ended, says_ended)]

    def facts(self, count: int, *, words: int = 0) -> Case:
        """One person with ``count`` facts amid about ``words`` words of other prose."""
        return self._facts(self._people, count, words=words)

    def _some(self, asked: tuple[Question, ...]) -> tuple[Question, ...]:
        return tuple(self._draw.sample(asked, min(self._sizes.asked, len(asked))))

    def _known(self, count: int) -> list[Known]:
        return [self._people.known(r, self._people.value(r)) for r in self._people.choose(count)]

    def _facts(self, people: People, count: int, *, words: int = 0) -> Case:
        known = [people.known(r, people.value(r)) for r in people.choose(count)]
        return self._told(known, words=words, people=people)

    def _told(self, known: Sequence[Known], *, words: int = 0, people: People | None = None) -> Case:
        people = people or self._people
        adapt = people.surround([people.tell(one.relation, one.value) for one in known], words)
        return Case(adapts=(adapt,), asked=tuple(people.question(one) for one in known))

    def _other_owner(self, case: Case, known: Sequence[Known]) -> Case | None:
        """Told of one owner, asked of another; the value that must not come stands in the question's ``values``."""
        told_of = [one.relation for one in known]
        for one in known:
            same = [r for r in self._people.relations if r.attribute == one.relation.attribute]
            free = [r for r in same if not any(r.clashes(other) for other in told_of)]
            if free:
                asked = self._people.question(self._people.known(self._draw.choice(free), one.value))
                return Case(adapts=case.adapts, asked=(asked,))
        return None

    def _noise(self, tokens: int) -> list[Adapt]:
        count = max(1, tokens // NOISE_TOKENS)
        return [Adapt(text=self._prose.passage(NOISE_TOKENS * CHARACTERS_PER_TOKEN)) for _ in range(count)]


def accepting(question: str, answers: Sequence[str]) -> Question:
    """A question that any of ``answers`` is right for; none of them: it was never told."""
    return Question(question, "", tuple(answers), "told" if answers else "untold")


def _asks_whether(one: Happened) -> bool:
    return one.ending is not None and one.ending.asks_whether


def _row(name: str, cases: Sequence[Case], judge: Judge, *, low_is_good: bool = False) -> Row:
    return Row(name=name, cases=tuple(cases), judge=judge, low_is_good=low_is_good)
