"""What held-out people get from a part: values, tellings and questions that no lesson of training had.

Every figure is a share of greedy answers in a fresh context, unless its name says nats or bits.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

from hope_serve.training.lessons.cases import Case, CaseBook, Row, Sizes
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.parts.examiner import Examiner
from hope_serve.training.parts.language import language, second_half
from hope_serve.training.parts.memory import Learner
from hope_serve.training.parts.speech import Speech

TEXT_CHARACTERS = 60_000
LEAST_CHARACTERS = 8_000


class Evaluation:
    """The table of figures of one part. ``scale``: of the numbers of people and the lengths of text."""

    def __init__(self, learner: Learner, plain: Learner, speech: Speech, text: Path, *, scale: float) -> None:
        self._examiner = Examiner(learner=learner, speech=speech)
        self._plain, self._text, self._scale = plain, text, scale
        draw = random.Random(7)  # noqa: S311 - a reproducible draw, nothing secret
        self._prose = Prose.load(text, "test", draw)
        self._sizes = Sizes.scaled(scale)
        self._book = CaseBook(self._prose, draw, sizes=self._sizes)

    def run(self) -> Iterator[tuple[str, float]]:
        """Every figure and its name, as they come."""
        for row in self._book.rows():
            yield row.name, self._examiner.share(row.cases, row.judge) if row.cases else math.nan
            if name := _IN_PROMPT.get(row.name):
                yield name, self._in_prompt(row)
        yield from self._language().items()
        yield from second_half(self._examiner, self._prose, texts=self._sizes.later_people).items()

    def _in_prompt(self, row: Row) -> float:
        """The source itself, with what was told in its prompt."""
        asked = [(case, question) for case in row.cases for question in case.asked]
        alone = [Case(adapts=(), asked=(question,)) for _, question in asked]
        told = ["\n".join(adapt.text for adapt in case.adapts) + "\n" for case, _ in asked]
        return self._examiner.share_in_prompt(self._plain, alone, told, row.judge)

    def _language(self) -> dict[str, float]:
        characters = max(LEAST_CHARACTERS, int(TEXT_CHARACTERS * self._scale))
        return language(self._examiner, self._plain, self._text, self._book.facts(4), characters=characters)


_IN_PROMPT = {
    "everyday, 12 sentences told": "everyday, the source with them in its prompt",
    "two hops": "two hops, facts in the prompt",
    "joined with knowledge": "joined with knowledge, facts in the prompt",
}
