"""``recall``: what is remembered of what was told, and what should not be said; five ways of answering side by side."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path

from hope_serve.evals.arms import ARMS, SOURCE_ARMS
from hope_serve.evals.case_file import load_case_file
from hope_serve.evals.exam import Exam, told_texts
from hope_serve.evals.report import Cell, Line, Report, Table, Unit
from hope_serve.evals.subject import Subject
from hope_serve.evals.suite import on_what
from hope_serve.evals.texts import load_prose, read_text, token_ids, weigh, windows
from hope_serve.training.lessons.cases import CaseBook, Row, Sizes
from hope_serve.training.lessons.prose import Prose

NOISE_TOKENS = (8192, 32768)
WINDOW, TOLD, MEASURED = 512, 1024, 512
TEXTS = ("books_test", "wikitext_test")
TEXT_CHARACTERS, LEAST_CHARACTERS = 60_000, 6_000
COST_ROWS = ("recall 1", "recall 8", "recall 100")
TIMES = 5
"""Questions whose first token is timed, of each row."""
SIZE_ROWS = ("recall 1", "recall 8", "recall 100", "recall 32 over 8")


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Options.

    Args:
        scale: of the numbers of people and the lengths of text; 1 takes 200 questions a row.
        text: folder with ``*_test.txt``, for the prose around facts and for the rows of language; None takes a bundled
            text for the former and leaves the latter out.
        cases: files of a stranger's cases.
        only_cases: leave everything else out.
    """

    scale: float = 1.0
    seed: int = 7
    text: Path | None = None
    cases: tuple[Path, ...] = ()
    only_cases: bool = False
    name: str = "recall"

    async def run(self, subject: Subject, source: Subject | None) -> Report:
        """See ``Suite``."""
        strange = [row for path in self.cases for row in load_case_file(path)]
        exam = Exam(subject, (*ARMS, *SOURCE_ARMS), source)
        tables = []
        if strange:
            tables.append(await exam.table("Cases of the files named", strange))
        if not self.only_cases:
            tables += await self._lessons(exam, subject, source)
        settings = asdict(self) | {"text": str(self.text), "cases": [str(path) for path in self.cases]}
        return Report(suite=self.name, model=on_what(subject), settings=settings, tables=tuple(tables))

    async def _lessons(self, exam: Exam, subject: Subject, source: Subject | None) -> list[Table]:
        draw = random.Random(self.seed)  # noqa: S311 - a reproducible draw, nothing secret
        prose = load_prose(self.text, draw)
        book = CaseBook(prose, draw, sizes=Sizes.scaled(self.scale, NOISE_TOKENS))
        rows = list(book.rows())
        title = "Held-out people: values, tellings and askings that no lesson had"
        tables = [await exam.table(title, rows, note=_NOTE)]
        times = max(1, min(TIMES, round(4 * TIMES * self.scale)))
        tables.append(await exam.costs("What a query costs, alone", _named(rows, COST_ROWS), times=times))
        tables.append(await exam.bytes_table(_named(rows, SIZE_ROWS)))
        if self.text is not None:
            stranger = await subject.taught(told_texts(book.facts(4)))
            tables.append(await self._language(subject, source, stranger))
            tables.append(await self._second_part(subject, prose))
        return tables

    async def _language(self, subject: Subject, source: Subject | None, stranger: str) -> Table:
        """Bits a byte of text that nobody told."""
        assert self.text is not None
        lines = []
        for name in TEXTS:
            path = self.text / f"{name}.txt"
            if path.exists():
                lines.append(await self._weighed(path, subject, source, stranger))
        columns = ("source", "empty memory", "empty over source", "a stranger's memory", "a stranger's over empty")
        return Table(title="Bits a byte", head="text", columns=columns, lines=tuple(lines), unit=Unit.NUMBER)

    async def _weighed(self, path: Path, subject: Subject, source: Subject | None, stranger: str) -> Line:
        characters = max(LEAST_CHARACTERS, int(TEXT_CHARACTERS * self.scale))
        rows = windows(await token_ids(subject, read_text(path, characters)), WINDOW)
        empty = (await weigh(subject, rows, stage=path.stem)).bits_per_byte
        strange = (await weigh(subject, rows, stranger, stage=path.stem)).bits_per_byte
        plain: Cell = None
        if source is not None:
            plain = (await weigh(source, rows, stage=f"{path.stem}, source")).bits_per_byte
        return Line(name=path.stem, cells=(plain, empty, empty / plain if plain else None, strange, strange / empty))

    async def _second_part(self, subject: Subject, prose: Prose) -> Table:
        """The tokens that follow in a text whose beginning was told, against the same without."""
        texts = max(2, int(8 * self.scale))
        told_nats = untold_nats = 0.0
        for _ in range(texts):
            ids = await token_ids(subject, prose.run(9_000))
            user = await subject.taught([await subject.client.detokenize(ids[:TOLD])])
            rest = [ids[TOLD : TOLD + MEASURED]]
            told_nats += (await weigh(subject, rest, user, stage="after the first part")).nats
            untold_nats += (await weigh(subject, rest, stage="without it")).nats
        line = Line(name=f"{MEASURED} tokens after {TOLD} told", cells=(told_nats / untold_nats - 1,), count=texts)
        return Table(
            title="A text's second part",
            head="bits a byte",
            columns=("change by having learned the first",),
            lines=(line,),
        )


def _named(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    return [row for row in rows if row.name in names]


_NOTE = (
    "Greedy, each question in a fresh context. A dash: the prompt was longer than the model takes, or nothing to ask. "
    "*all in the prompt*: everything told stands before the question; *BM25*: its two best sentences (SQLite FTS5) do."
)
