"""``language``: how likely running text is; where in a window it gets likelier; what reading on, or back, gives.

Three arms: *memory*, dynamic evaluation, an Adapt of every window once it was weighed; *context*, what came before in
the prompt; *neither*, each window by itself. A rival, a Transformer trained beside the model, has the last two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hope_serve.errors import InvalidRequest
from hope_serve.evals.last_words import MOST_PASSAGES, Passage, last_words, load_passages
from hope_serve.evals.reading import Curve, Lengths, Reader, Rival, as_it_reads, by_position, in_context, twice
from hope_serve.evals.report import Cell, Chart, Line, Report, Table, Unit
from hope_serve.evals.subject import Subject
from hope_serve.evals.suite import failures_of, on_what
from hope_serve.evals.texts import num_bytes, read_text, token_ids, windows

CHARACTERS, LEAST_CHARACTERS = 200_000, 8_000
COMPARED_CHARACTERS = 20_000
"""Of each text, whose ids a rival must share."""
PASSAGES = 20


@dataclass(frozen=True, kw_only=True)
class Language:
    """Options.

    Args:
        files: texts, each measured over its beginning.
        lambada: JSON lines ``{"text": passage}`` or plain lines, whose last word is asked for.
        rival: a model beside the one that is served, with the same tokenizer.
        scale: of the lengths; 1 reads 200,000 characters of each file.
    """

    files: tuple[Path, ...] = ()
    lambada: Path | None = None
    rival: Rival | None = None
    scale: float = 1.0
    name: str = "language"

    def __post_init__(self) -> None:
        if not self.files and self.lambada is None:
            raise InvalidRequest("files", "no text is named; name files, or --lambada")

    async def run(self, subject: Subject, source: Subject | None) -> Report:
        """See ``Suite``."""
        characters = max(LEAST_CHARACTERS, int(CHARACTERS * self.scale))
        texts = {path.stem: read_text(path, characters) for path in self.files}
        passages = load_passages(self.lambada) if self.lambada else []
        if self.rival is not None:
            await _check_tokens(subject, self.rival, [*texts.values(), *(start for start, _ in passages[:20])])
        read = await Texts(subject, source, self.rival, scale=self.scale).read(texts) if texts else None
        tables = read.tables() if read else []
        if self.lambada is not None:
            tables.append(await self._last_words(subject, self.lambada.stem, passages))
        settings = {"files": [str(path) for path in self.files], "lambada": str(self.lambada), "scale": self.scale}
        return Report(
            suite=self.name,
            model=on_what(subject),
            settings=settings,
            tables=tuple(tables),
            charts=(read.chart(),) if read else (),
            notes=(f"*rival*: {self.rival.note}.",) if self.rival else (),
            failures=failures_of(subject, source),
        )

    async def _last_words(self, subject: Subject, name: str, passages: Sequence[Passage]) -> Table:
        few = passages[: max(2, round(MOST_PASSAGES * self.scale))]
        return await last_words(subject, f"{name}: the last word", few, self.rival)


class Texts:
    """Running texts, read by everybody who is there, in windows as long as everybody takes."""

    def __init__(self, subject: Subject, source: Subject | None, rival: Rival | None, *, scale: float) -> None:
        self._subject, self._source, self._rival, self._scale = subject, source, rival, scale
        beside: list[Reader] = [one for one in (source, rival) if one is not None]
        self._lengths = Lengths.within([subject, *beside], subject.model.max_adapt_tokens)
        self._bits: list[Line] = []
        self._curves: dict[str, Curve] = {}
        self._twice: list[Line] = []

    async def read(self, texts: dict[str, str]) -> Texts:
        """All of them; of the first, passages twice as well. What fails in one leaves the others."""
        for name, text in texts.items():
            ids = await self._subject.tried(name, token_ids(self._subject, text)) or []
            line = await self._subject.tried(name, self._weigh(name, ids))
            self._bits.append(line or Line(name=name, cells=(None,) * len(self._columns())))
            for label, reader in self._readers():
                curve = by_position(
                    self._subject, reader, ids, size=self._lengths.long_window, stage=f"{name}: positions"
                )
                self._curves[f"{name}{label}"] = await self._subject.tried(f"{name}: positions", curve) or ()
            if not self._twice:
                self._twice = [await self._passages(label, reader, ids) for label, reader in self._readers()]
        return self

    def tables(self) -> list[Table]:
        """Bits a byte, nats by position, and of passages read twice."""
        lengths = self._lengths
        bits = Table(
            title="Bits a byte",
            head=f"windows of {lengths.window} tokens",
            columns=self._columns(),
            lines=tuple(self._bits),
            unit=Unit.NUMBER,
            note="*of*: bytes. The memory is weighed before it learns each window.",
        )
        repeated = Table(
            title="A repeated passage",
            head="passages",
            columns=("nats the first time", "the second time"),
            lines=tuple(self._twice),
            unit=Unit.NUMBER,
        )
        return [bits, _position_table(self._curves, lengths.long_window), repeated]

    def chart(self) -> Chart:
        """Loss by position."""
        return Chart(title="Loss by position", x="token of the window", y="nats", series=self._curves, log_x=True)

    def _columns(self) -> tuple[str, ...]:
        columns = ["memory, learning as it reads", _context_name(self._lengths.before(self._subject)), "neither"]
        if self._source is not None:
            columns.append("source, neither")
        if self._rival is not None:
            columns += [f"rival, {_context_name(self._lengths.before(self._rival))}", "rival, neither"]
        return tuple(columns)

    def _readers(self) -> list[tuple[str, Reader]]:
        """Whose positions and passages are read, and what is added to a line's name."""
        return [("", self._subject), *([(", rival", self._rival)] if self._rival is not None else [])]

    async def _weigh(self, name: str, ids: Sequence[int]) -> Line:
        """Bits a byte in every column."""
        rows = windows(ids, self._lengths.window)
        size = await num_bytes(self._subject, rows)
        nats = [
            await self._subject.tried(f"{name}: learning", as_it_reads(self._subject, rows, stage=f"{name}: learning"))
        ]
        nats += await self._both(self._subject, rows, f"{name}: ")
        if self._source is not None:
            nats.append(await in_context(self._source, self._source, rows, before=0, stage=f"{name}: source"))
        if self._rival is not None:
            nats += await self._both(self._rival, rows, f"{name}: rival ")
        cells = tuple(None if one is None else one / size / math.log(2) for one in nats)
        return Line(name=name, cells=cells, count=size)

    async def _both(self, reader: Reader, rows: Sequence[Sequence[int]], stage: str) -> list[Cell]:
        """Nats in context, None where there is no room for any, and alone."""
        before = self._lengths.before(reader)
        read: Cell = None
        if before:
            read = await in_context(self._subject, reader, rows, before=before, stage=f"{stage}in context")
        return [read, await in_context(self._subject, reader, rows, before=0, stage=f"{stage}alone")]

    async def _passages(self, label: str, reader: Reader, ids: Sequence[int]) -> Line:
        """A passage twice in a row: does the second time cost less?"""
        size = self._lengths.passage
        count = min(max(2, round(PASSAGES * self._scale)), len(ids) // size) if size > 1 else 0
        passages = [ids[at * size : (at + 1) * size] for at in range(count)]
        cells = await twice(self._subject, reader, passages, stage=f"passages twice{label}")
        return Line(name=f"{size} tokens, twice in a row{label}", cells=cells, count=count)


async def _check_tokens(subject: Subject, rival: Rival, texts: Sequence[str]) -> None:
    """Raises InvalidRequest: a rival of other tokens, whose nats a token say nothing beside the model's."""
    for text in texts:
        start = text[:COMPARED_CHARACTERS]
        if list(await subject.client.tokenize(start)) != rival.encode(start):
            raise InvalidRequest(
                "--rival", "its tokenizer gives other ids than the server's; name one trained with the model's own"
            )


def _context_name(before: int) -> str:
    return f"context, {before:,} tokens before" if before else "context, no room for any"


def _position_table(curves: dict[str, Curve], size: int) -> Table:
    ends = [end for end, _ in max(curves.values(), key=len)]
    lines = []
    for name, points in curves.items():
        known = dict(points)
        lines.append(Line(name=name, cells=tuple(known.get(end) for end in ends)))
    columns = tuple(f"to {end:.0f}" for end in ends)
    head = f"windows of {size:,} tokens"
    return Table(title="Nats by position", head=head, columns=columns, lines=tuple(lines), unit=Unit.NUMBER)
