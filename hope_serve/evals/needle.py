"""``needle``: one fact in a long text, asked for afterwards; the text learned, in the prompt, or searched."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hope_serve.errors import InvalidRequest
from hope_serve.evals.arms import BM25, MEMORY, NEITHER, PROMPT
from hope_serve.evals.exam import Exam
from hope_serve.evals.report import Chart, Report, Table
from hope_serve.evals.subject import Subject
from hope_serve.evals.suite import failures_of, on_what
from hope_serve.evals.texts import load_prose
from hope_serve.training.lessons.cases import Case, CaseBook, Row, Sizes
from hope_serve.training.lessons.judge import holds_value
from hope_serve.training.lessons.lesson import Adapt, Question
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.personas import PersonaFactory, Split

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
FILLED = 0.95
"""The share of a length that is filled, so that question and template fit beside it."""
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
SAMPLE_CHARACTERS = 4_000
WORDINGS = ("lessons", "people")


@dataclass(frozen=True, kw_only=True)
class Needle:
    """Options.

    Args:
        lengths: tokens of the haystack.
        scale: of the number of needles a length; 1 takes 20.
        text: folder with ``*_test.txt`` for the haystack; None repeats the bundled passages.
        wording: whose facts the needles are: held-out ``lessons``, or the ``people`` that hope-demo learned.
    """

    scale: float = 1.0
    seed: int = 7
    lengths: tuple[int, ...] = LENGTHS
    text: Path | None = None
    wording: str = "lessons"
    name: str = "needle"

    def __post_init__(self) -> None:
        if self.wording not in WORDINGS:
            raise InvalidRequest("--wording", f"{self.wording!r} is unknown; choose one of {', '.join(WORDINGS)}")
        for length in self.lengths:
            if not 64 <= length <= 2**20:
                raise InvalidRequest("--lengths", f"{length} is outside [64, {2**20}]; name tokens within it")

    async def run(self, subject: Subject, _source: Subject | None) -> Report:
        """See ``Suite``."""
        draw = random.Random(self.seed)  # noqa: S311 - a reproducible draw, nothing secret
        hay = Hay(load_prose(self.text, draw), await _characters_per_token(subject, load_prose(self.text, draw)))
        needles = Needles(self.wording, hay.prose, draw)
        count = max(1, round(20 * self.scale))
        rows = [self._row(length, [needles.one() for _ in range(count)], hay) for length in self.lengths]
        exam = Exam(subject, (MEMORY, PROMPT, BM25, NEITHER))
        table = await exam.table("One fact in a long text", rows, note=_note(subject))
        return Report(
            suite=self.name,
            model=on_what(subject),
            settings=asdict(self) | {"text": str(self.text)},
            tables=(table,),
            charts=(_chart(table, self.lengths),),
            failures=failures_of(subject),
        )

    def _row(self, length: int, needles: Sequence[tuple[str, Question]], hay: Hay) -> Row:
        cases = [
            Case(adapts=(Adapt(text=hay.around(told, length, DEPTHS[index % len(DEPTHS)])),), asked=(question,))
            for index, (told, question) in enumerate(needles)
        ]
        return Row(name=f"{length:,} tokens", cases=tuple(cases), judge=holds_value)


class Needles:
    """Draws facts and the questions about them."""

    def __init__(self, wording: str, prose: Prose, draw: random.Random) -> None:
        self._people = PersonaFactory(Split.HELD_OUT, seed=draw.randrange(2**31)) if wording == "people" else None
        self._book = CaseBook(prose, draw, sizes=Sizes())

    def one(self) -> tuple[str, Question]:
        """A telling, and the question whose values are the answer."""
        if self._people is None:
            case = self._book.facts(1)
            return case.adapts[0].text, case.asked[0]
        (fact,) = self._people.facts(1)
        return fact.statement, Question(fact.question, fact.answer, (fact.value,))


class Hay:
    """Other people's text of a length in tokens."""

    def __init__(self, prose: Prose, characters_per_token: float) -> None:
        self.prose, self._ratio = prose, characters_per_token

    def around(self, needle: str, tokens: int, depth: float) -> str:
        """About ``tokens`` tokens with the needle at a depth of 0 (first) to 1 (last)."""
        characters = int(tokens * FILLED * self._ratio) - len(needle)
        before, after = int(characters * depth), int(characters * (1 - depth))
        return f"{self.prose.passage(before)} {_ended(needle)} {self.prose.passage(after)}"


def _ended(sentence: str) -> str:
    return sentence if sentence.rstrip()[-1:] in ".?!\"'" else f"{sentence}."


async def _characters_per_token(subject: Subject, prose: Prose) -> float:
    sample = prose.passage(SAMPLE_CHARACTERS)
    return len(sample) / len(await subject.client.tokenize(sample))


def _chart(table: Table, lengths: Sequence[int]) -> Chart:
    series = {
        arm: tuple(
            (float(length), 100 * cell)
            for length, line in zip(lengths, table.lines, strict=True)
            if (cell := line.cells[index]) is not None
        )
        for index, arm in enumerate(table.columns)
    }
    return Chart(title="Found, by the length of the text", x="tokens", y="% found", series=series, log_x=True)


def _note(subject: Subject) -> str:
    return (
        f"*memory*: the text was learned, at most {subject.model.max_adapt_tokens:,} tokens an Adapt, and is in no "
        f"context. *all in the prompt*: it is only there. A dash: longer than the {subject.max_tokens:,} tokens that a "
        "prompt may have."
    )
