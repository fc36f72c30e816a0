"""``recall``: what is remembered of what was told, and what should not be said; five ways of answering side by side."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path

from hope_serve.evals.arms import ARMS, SOURCE_ARMS
from hope_serve.evals.case_file import load_case_file
from hope_serve.evals.exam import Exam, told_texts
from hope_serve.evals.report import Cell, Line, Report, Table, Unit
from hope_serve.evals.subject import Subject, complete
from hope_serve.evals.suite import failures_of, on_what
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
        return Report(
            suite=self.name,
            model=on_what(subject),
            settings=settings,
            tables=tuple(tables),
            failures=failures_of(subject, source),
        )

    async def _lessons(self, exam: Exam, subject: Subject, source: Subject | None) -> list[Table]:
        draw = random.Random(self.seed)  # noqa: S311 - a reproducible draw, nothing secret
        prose, texts = load_prose(self.text, draw), self._texts()
        book = CaseBook(prose, draw, sizes=Sizes.scaled(self.scale, NOISE_TOKENS))
        rows = list(book.rows())
        title = "Held-out people: values, tellings and askings that no lesson had"
        tables = [await exam.table(title, rows, note=_NOTE)]
        times = max(1, min(TIMES, round(4 * TIMES * self.scale)))
        tables.append(await exam.costs("What a query costs, alone", _named(rows, COST_ROWS), times=times))
        tables.append(await exam.bytes_table(_named(rows, SIZE_ROWS)))
        if self.text is not None:
            stranger = await subject.tried("a stranger", subject.taught(told_texts(book.facts(4))))
            tables.append(await self._language(texts, subject, source, stranger))
            tables.append(await self._second_part(subject, prose))
        return tables

    def _texts(self) -> dict[str, str]:
        """What is weighed, by name; read before anything is asked."""
        characters = max(LEAST_CHARACTERS, int(TEXT_CHARACTERS * self.scale))
        paths = [self.text / f"{name}.txt" for name in TEXTS] if self.text is not None else []
        return {path.stem: read_text(path, characters) for path in paths if path.exists()}

    async def _language(
        self, texts: dict[str, str], subject: Subject, source: Subject | None, stranger: str | None
    ) -> Table:
        """Bits a byte of text that nobody told."""
        size = min(WINDOW, *(one.max_tokens for one in (subject, source) if one))
        lines = []
        for name, text in texts.items():
            cells = await subject.tried(name, _weighed(name, text, size, (subject, source, stranger)))
            lines.append(Line(name=name, cells=cells or (None,) * 5))
        columns = ("source", "empty memory", "empty over source", "a stranger's memory", "a stranger's over empty")
        head = f"windows of {size} tokens"
        return Table(title="Bits a byte", head=head, columns=columns, lines=tuple(lines), unit=Unit.NUMBER)

    async def _second_part(self, subject: Subject, prose: Prose) -> Table:
        """The tokens that follow in a text whose beginning was told, against the same without."""
        texts, measured = max(2, int(8 * self.scale)), min(MEASURED, subject.max_tokens)
        runs = [prose.run(9_000) for _ in range(texts)]
        nats = complete([await subject.tried("a second part", _second_nats(subject, run, measured)) for run in runs])
        change = sum(told for told, _ in nats) / sum(untold for _, untold in nats) - 1 if nats else None
        line = Line(name=f"{measured} tokens after {TOLD} told", cells=(change,), count=texts)
        return Table(
            title="A text's second part",
            head="bits a byte",
            columns=("change by having learned the first",),
            lines=(line,),
        )


async def _weighed(
    name: str, text: str, size: int, asked: tuple[Subject, Subject | None, str | None]
) -> tuple[Cell, ...]:
    """By the source, with an empty memory, the one over the other, with a stranger's, and that over the empty."""
    subject, source, stranger = asked
    rows = windows(await token_ids(subject, text), size)
    empty = (await weigh(subject, rows, stage=name)).bits_per_byte
    strange = (await weigh(subject, rows, stranger, stage=name)).bits_per_byte if stranger else None
    plain = (await weigh(source, rows, stage=f"{name}, source")).bits_per_byte if source else None
    return plain, empty, _over(empty, plain), strange, _over(strange, empty)


async def _second_nats(subject: Subject, text: str, measured: int) -> tuple[float, float] | None:
    """Nats of the second part with the first learned, and without."""
    ids = await token_ids(subject, text)
    user = await subject.taught([await subject.client.detokenize(ids[:TOLD])])
    rest = windows(ids[TOLD : TOLD + measured], measured)
    told, untold = [
        (await weigh(subject, rest, whose, stage=stage)).nats
        for whose, stage in ((user, "after the first part"), ("", "without it"))
    ]
    return None if told is None or untold is None else (told, untold)


def _over(one: Cell, other: Cell) -> Cell:
    return one / other if one is not None and other else None


def _named(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    return [row for row in rows if row.name in names]


_NOTE = (
    "Greedy, each question in a fresh context. A dash: the prompt was longer than the model takes, or nothing to ask. "
    "*all in the prompt*: everything told stands before the question; *BM25*: its two best sentences (SQLite FTS5) do."
)
