"""What held-out people get from a part: values, tellings and questions that no lesson of training had.

Every figure is a share of greedy answers in a fresh context, unless its name says nats or bits.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hope_serve.training.lessons.joined import Joined
from hope_serve.training.lessons.lesson import Adapt, Question
from hope_serve.training.lessons.people import Habits, Known, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.parts.cases import Case, Examiner
from hope_serve.training.parts.judge import abstains, holds_any, holds_value, says_ended
from hope_serve.training.parts.language import language, second_half
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.speech import Speech
from hope_serve.training.personas import Split

NOISE_TOKENS = 220


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many people, and how much text, each figure is taken over."""

    people: int = 100
    later_people: int = 8
    noise_tokens: int = 8192
    text_characters: int = 60_000

    @classmethod
    def scaled(cls, share: float) -> Sizes:
        """Sizes for a quicker look."""
        return cls(
            people=max(2, int(100 * share)),
            later_people=max(1, int(8 * share)),
            noise_tokens=int(8192 * share),
            text_characters=max(8_000, int(60_000 * share)),
        )


class Evaluation:
    """The table of figures of one part."""

    def __init__(self, learner: Learner, plain: Learner, speech: Speech, text: Path, *, sizes: Sizes) -> None:
        self._examiner = Examiner(learner=learner, speech=speech)
        self._plain, self._text, self._sizes = plain, text, sizes
        self._draw = random.Random(7)  # noqa: S311 - a reproducible draw, nothing secret
        self._prose = Prose.load(text, "test", self._draw)
        habits = Habits(correct=0, end=0, prose=0, turns=0, noisy_words=False)
        self._people = People(Split.HELD_OUT, self._prose, self._draw, habits=habits)
        self._new = People(Split.HELD_OUT, self._prose, self._draw, habits=habits, new_relations=True)
        self._joined = Joined(Split.HELD_OUT, self._draw)

    def run(self) -> Iterator[tuple[str, float]]:
        """Every figure and its name, as they come."""
        groups = (
            self._recall,
            self._everyday,
            self._amid_prose,
            self._never_told,
            self._changed,
            self._put_together,
            self._much,
            self._later,
            self._language,
            self._second_half,
        )
        for group in groups:
            yield from group().items()

    def _recall(self) -> dict[str, float]:
        people, figures = self._sizes.people, {}
        for count in (1, 4, 8):
            cases = [self._facts(self._people, count) for _ in range(max(2, 2 * people // count))]
            figures[f"recall {count}"] = self._examiner.share(cases, holds_value)
        cases = [self._facts(self._new, 4) for _ in range(people // 2)]
        return figures | {"recall 4, new relations": self._examiner.share(cases, holds_value)}

    def _everyday(self) -> dict[str, float]:
        """Sentences written by hand, no templates: all of a person's told at once, and a few."""
        people = json.loads(files("hope_serve.training.lessons").joinpath("everyday.json").read_text("utf-8"))
        told, untold = [], []
        for person in people[: max(2, self._sizes.people // 5)]:
            adapts = (Adapt(text=" ".join(person["sentences"])),)
            asked = [
                Question(q["ask"], "", tuple(q["accept"]), "told" if q["accept"] else "untold")
                for q in person["questions"]
            ]
            told.append(Case(adapts=adapts, asked=tuple(q for q in asked if q.values)))
            untold.append(Case(adapts=adapts, asked=tuple(q for q in asked if not q.values)))
        beside = [" ".join(case.adapts[0].text.split()) + "\n" for case in told for _ in case.asked]
        alone = [Case(adapts=(), asked=(question,)) for case in told for question in case.asked]
        return {
            "everyday, 12 sentences told": self._examiner.share(told, holds_any),
            "everyday, told but refused": self._examiner.share(told, abstains),
            "everyday, never told, says so": self._examiner.share(untold, abstains),
            "everyday, the source with them in its prompt": self._examiner.share_in_prompt(
                self._plain, alone, beside, holds_any
            ),
        }

    def _amid_prose(self) -> dict[str, float]:
        figures = {}
        for words in (60, 200):
            cases = [self._facts(self._people, 1, words=words) for _ in range(self._sizes.people)]
            figures[f"recall 1 amid {words} words"] = self._examiner.share(cases, holds_value)
        return figures

    def _facts(self, people: People, count: int, *, words: int = 0) -> Case:
        known = [people.known(r, people.value(r)) for r in people.choose(count)]
        return self._told(people, known, words=words)

    def _told(self, people: People, known: Sequence[Known], *, words: int = 0) -> Case:
        adapt = people.surround([people.tell(one.relation, one.value) for one in known], words)
        return Case(adapts=(adapt,), asked=tuple(people.question(one) for one in known))

    def _never_told(self) -> dict[str, float]:
        cases: list[Case] = []
        strangers: list[Case] = []
        lists: list[list[Known]] = []
        for _ in range(self._sizes.people // 2):
            known = [self._people.known(r, self._people.value(r)) for r in self._people.choose(4)]
            case = self._told(self._people, known)
            told_of = [one.relation for one in known]
            unknown = tuple(self._people.unknown(told_of) for _ in range(4))
            cases.append(Case(adapts=case.adapts, asked=unknown))
            strangers.append(case)
            lists.append(known)
        moved = [
            Case(adapts=a.adapts, asked=b.asked) for a, b in zip(strangers, strangers[1:] + strangers[:1], strict=True)
        ]
        others = [other for known in lists if (other := self._other_owner(known))]
        return {
            "never told, says so": self._examiner.share(cases, abstains),
            "told, but refused": self._examiner.share(strangers, abstains),
            "another owner's value": self._examiner.share(others, holds_value) if others else math.nan,
            "another owner: says so": self._examiner.share(others, abstains) if others else math.nan,
            "a stranger's facts": self._examiner.share(moved, holds_value),
        }

    def _other_owner(self, known: Sequence[Known]) -> Case | None:
        """Told of one owner, asked of another; the value that must not come stands in the question's ``values``."""
        told_of = [one.relation for one in known]
        for one in known:
            same = [r for r in self._people.relations if r.attribute == one.relation.attribute]
            free = [r for r in same if not any(r.clashes(other) for other in told_of)]
            if free:
                asked = self._people.question(self._people.known(self._draw.choice(free), one.value))
                return Case(adapts=self._told(self._people, known).adapts, asked=(asked,))
        return None

    def _changed(self) -> dict[str, float]:
        """Four facts, and one of them corrected or ended in a second adaptation."""
        corrected: list[Case] = []
        ended: list[Case] = []
        for _ in range(self._sizes.people // 2):
            known = [self._people.known(r, self._people.value(r)) for r in self._people.choose(4)]
            first = self._told(self._people, known)
            for change, cases in ((self._people.correct, corrected), (self._people.end, ended)):
                changed = next((found for one in known if (found := change(one))), None)
                if changed:
                    second = self._people.surround([changed[0]], 0)
                    asked = (self._people.question(changed[1]),)
                    cases.append(Case(adapts=(*first.adapts, second), asked=asked))
        return {
            "corrected": self._examiner.share(corrected, holds_value),
            "ended": self._examiner.share(ended, says_ended),
        }

    def _put_together(self) -> dict[str, float]:
        figures = {}
        for name, draw in (("two hops", self._joined.hop), ("joined with knowledge", self._joined.place)):
            cases = []
            for _ in range(self._sizes.people // 2):
                pieces, questions = draw()
                if questions[0].kind == "joined":
                    cases.append(Case(adapts=(Adapt(text=" ".join(pieces)),), asked=tuple(questions)))
            figures[name] = self._examiner.share(cases, holds_value)
            told = ["\n".join(a.text for a in case.adapts) + "\n" for case in cases]
            figures[f"{name}, facts in the prompt"] = self._examiner.share_in_prompt(self._plain, cases, told)
        return figures

    def _much(self) -> dict[str, float]:
        people = max(1, self._sizes.people // 25)
        return {
            "recall 100": self._examiner.share([self._facts(self._people, 100) for _ in range(people)], holds_value)
        }

    def _later(self) -> dict[str, float]:
        """32 facts over 8 adaptations, then other text."""
        cases, firsts = [], []
        for _ in range(self._sizes.later_people):
            relations = self._people.choose(32)
            known = [self._people.known(r, self._people.value(r)) for r in relations]
            parts = [self._told(self._people, known[at : at + 4]) for at in range(0, len(known), 4)]
            cases.append(
                Case(adapts=tuple(a for p in parts for a in p.adapts), asked=tuple(q for p in parts for q in p.asked))
            )
            firsts.append(parts[0].asked)
        noise = [self._noise() for _ in cases]
        tokens = self._sizes.noise_tokens
        aged = [Case(adapts=(*c.adapts, *n), asked=f) for c, n, f in zip(cases, noise, firsts, strict=True)]
        return {
            "recall 32 over 8": self._examiner.share(cases, holds_value),
            f"oldest of these after {tokens} tokens": self._examiner.share(aged, holds_value),
        }

    def _noise(self) -> list[Adapt]:
        count = self._sizes.noise_tokens // NOISE_TOKENS
        return [Adapt(text=self._prose.passage(NOISE_TOKENS * 4)) for _ in range(count)]

    def _language(self) -> dict[str, float]:
        characters = self._sizes.text_characters
        return language(self._examiner, self._plain, self._text, self._facts(self._people, 4), characters=characters)

    def _second_half(self) -> dict[str, float]:
        return second_half(self._examiner, self._prose, texts=self._sizes.later_people)
