"""``language``: how likely running text is; where in a window it gets likelier; what reading on, or back, gives.

Three arms: *memory*, dynamic evaluation, an Adapt of every window once it was weighed; *context*, what came before in
the prompt; *neither*, each window by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hope_serve.errors import InvalidRequest
from hope_serve.evals.report import Cell, Chart, Line, Report, Table, Unit
from hope_serve.evals.subject import Subject
from hope_serve.evals.suite import on_what
from hope_serve.evals.texts import num_bytes, read_text, token_ids, weigh, windows

WINDOW, LONG_WINDOW, CONTEXT = 512, 1024, 2048
CHARACTERS, LEAST_CHARACTERS = 200_000, 8_000
PASSAGE = 100
PASSAGES = 20
LAMBADA_PASSAGES = 500
POSITIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, kw_only=True)
class Language:
    """Options.

    Args:
        files: texts, each measured over its beginning.
        lambada: JSON lines ``{"text": passage}`` or plain lines, whose last word is asked for.
        scale: of the lengths; 1 reads 200,000 characters of each file.
    """

    files: tuple[Path, ...] = ()
    lambada: Path | None = None
    scale: float = 1.0
    name: str = "language"

    def __post_init__(self) -> None:
        if not self.files and self.lambada is None:
            raise InvalidRequest("files", "no text is named; name files, or --lambada")

    async def run(self, subject: Subject, source: Subject | None) -> Report:
        """See ``Suite``."""
        tables: list[Table] = []
        charts: list[Chart] = []
        if self.files:
            reading = [await self._read(path, subject, source) for path in self.files]
            tables.append(_bits_table([line for line, _ in reading], with_source=source is not None))
            curves = {path.stem: curve for path, (_, curve) in zip(self.files, reading, strict=True)}
            charts.append(Chart(title="Loss by position", x="token of the window", y="nats", series=curves, log_x=True))
            tables.append(_position_table(curves))
            tables.append(await self._repeated(subject))
        if self.lambada is not None:
            tables.append(await self._last_words(self.lambada, subject))
        settings = {"files": [str(path) for path in self.files], "lambada": str(self.lambada), "scale": self.scale}
        return Report(
            suite=self.name, model=on_what(subject), settings=settings, tables=tuple(tables), charts=tuple(charts)
        )

    def _characters(self) -> int:
        return max(LEAST_CHARACTERS, int(CHARACTERS * self.scale))

    async def _read(
        self, path: Path, subject: Subject, source: Subject | None
    ) -> tuple[Line, tuple[tuple[float, float], ...]]:
        """Bits a byte by every arm, and the loss by position of long windows."""
        ids = await token_ids(subject, read_text(path, self._characters()))
        rows = windows(ids, WINDOW)
        alone = (await weigh(subject, rows, stage=f"{path.stem}: alone")).bits_per_byte
        size = await num_bytes(subject, rows)
        in_context = await _in_context(subject, rows, stage=f"{path.stem}: in context")
        learned = await _as_it_reads(subject, rows, stage=f"{path.stem}: learning")
        cells: list[Cell] = [learned / size / math.log(2), in_context / size / math.log(2), alone]
        if source is not None:
            cells.append((await weigh(source, rows, stage=f"{path.stem}: source")).bits_per_byte)
        curve = await _by_position(subject, windows(ids, min(LONG_WINDOW, len(ids))), stage=f"{path.stem}: positions")
        return Line(name=path.stem, cells=tuple(cells), count=size), curve

    async def _repeated(self, subject: Subject) -> Table:
        """A passage twice in a row: does the second time cost less?"""
        text = read_text(self.files[0], self._characters())
        ids = await token_ids(subject, text)
        count = max(2, min(round(PASSAGES * self.scale), len(ids) // PASSAGE))
        passages = [ids[at * PASSAGE : (at + 1) * PASSAGE] for at in range(count)]
        scored = await subject.gather(
            "passages twice", (subject.token_logprobs(one[:1], [*one[1:], *one]) for one in passages if len(one) > 1)
        )
        first = [-p for row in scored for p in row[: PASSAGE - 1]]
        second = [-p for row in scored for p in row[PASSAGE:]]
        cells = (sum(first) / len(first), sum(second) / len(second))
        line = Line(name=f"{PASSAGE} tokens, twice in a row", cells=cells, count=len(scored))
        columns = ("nats the first time", "the second time")
        return Table(title="A repeated passage", head="passages", columns=columns, lines=(line,), unit=Unit.NUMBER)

    async def _last_words(self, path: Path, subject: Subject) -> Table:
        """The last word of each passage: the rest learned, in the prompt, or only its last sentence given."""
        passages = load_passages(path)[: max(2, round(LAMBADA_PASSAGES * self.scale))]
        users = await subject.gather("passages: teach", (subject.taught([start]) for start, _ in passages))
        asked = {
            "memory": [(_last_sentence(start), user) for (start, _), user in zip(passages, users, strict=True)],
            "all in the prompt": [(start, "") for start, _ in passages],
            "neither": [(_last_sentence(start), "") for start, _ in passages],
        }
        shares, nats = [], []
        for arm, prompts in asked.items():
            calls = [
                subject.client.score(prompt, [f" {word}"], user_id=user)
                for (prompt, user), (_, word) in zip(prompts, passages, strict=True)
            ]
            scored = [one for (one,) in await subject.gather(f"last words: {arm}", calls)]
            shares.append(sum(one.is_greedy for one in scored) / len(scored))
            nats.append(-sum(one.logprob for one in scored) / len(scored))
        lines = (
            Line(name="said greedily", cells=tuple(shares), count=len(passages)),
            Line(name="nats of the word", cells=tuple(nats), count=len(passages)),
        )
        return Table(
            title=f"{path.stem}: the last word",
            head="",
            columns=tuple(asked),
            lines=lines,
            unit=Unit.NUMBER,
            note=_NOTE,
        )


def load_passages(path: Path) -> list[tuple[str, str]]:
    """Every passage as (all but its last word, its last word).

    Raises:
        InvalidRequest: naming file, line and what is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(path), f"it cannot be read as UTF-8 text: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            start, _, word = _passage(path, number, line).strip().rpartition(" ")
            if not start:
                raise InvalidRequest(
                    f"{path}:{number}", f"{word[:40]!r} is one word; a passage has more before its last"
                )
            found.append((start, word))
    if not found:
        raise InvalidRequest(str(path), "it holds no passages; write one a line")
    return found


def _passage(path: Path, number: int, line: str) -> str:
    if not line.lstrip().startswith("{"):
        return line
    try:
        return msgspec.json.decode(line, type=_Passage).text
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"{path}:{number}", f'{error}; a line is {{"text": "..."}} or plain text') from error


class _Passage(msgspec.Struct, frozen=True):
    text: str


def _last_sentence(text: str) -> str:
    cut = max(text.rfind(mark) for mark in (". ", "! ", "? ", '" '))
    return text[cut + 2 :] if 0 <= cut < len(text) - 2 else text


async def _in_context(subject: Subject, rows: Sequence[Sequence[int]], *, stage: str) -> float:
    """Nats of all windows with up to ``CONTEXT`` tokens of what came before in the prompt."""
    flat = [token for row in rows for token in row]
    size = len(rows[0])

    def before(index: int) -> list[int]:
        return flat[max(0, index * size - CONTEXT) : index * size]

    calls = (subject.token_logprobs([*before(i), row[0]], row[1:]) for i, row in enumerate(rows))
    return -sum(map(sum, await subject.gather(stage, calls)))


async def _as_it_reads(subject: Subject, rows: Sequence[Sequence[int]], *, stage: str) -> float:
    """Nats of all windows in their order, each learned once it was weighed."""
    user, nats = subject.newcomer(), 0.0
    with subject.bars.stage(stage, len(rows)) as step:
        for row in rows:
            nats -= sum(await subject.token_logprobs(row[:1], row[1:], user))
            await subject.client.adapt(user, list(row))
            step()
    return nats


async def _by_position(
    subject: Subject, rows: Sequence[Sequence[int]], *, stage: str
) -> tuple[tuple[float, float], ...]:
    """(last position of a group, mean nats in it), groups doubling in size."""
    scored = await subject.gather(stage, (subject.token_logprobs(row[:1], row[1:]) for row in rows))
    points = []
    for start, end in zip((0, *POSITIONS), POSITIONS, strict=False):
        nats = [-p for row in scored for p in row[start:end]]
        if nats:
            points.append((float(end), sum(nats) / len(nats)))
    return tuple(points)


def _bits_table(lines: Sequence[Line], *, with_source: bool) -> Table:
    columns = ("memory, learning as it reads", f"context, {CONTEXT} tokens before", "neither")
    return Table(
        title="Bits a byte",
        head=f"windows of {WINDOW} tokens",
        columns=(*columns, "source, neither") if with_source else columns,
        lines=tuple(lines),
        unit=Unit.NUMBER,
        note="*of*: bytes. The memory is weighed before it learns each window.",
    )


def _position_table(curves: dict[str, tuple[tuple[float, float], ...]]) -> Table:
    ends = [end for end, _ in max(curves.values(), key=len)]
    lines = []
    for name, points in curves.items():
        known = dict(points)
        lines.append(Line(name=name, cells=tuple(known.get(end) for end in ends)))
    columns = tuple(f"to {end:.0f}" for end in ends)
    return Table(title="Nats by position", head="token", columns=columns, lines=tuple(lines), unit=Unit.NUMBER)


_NOTE = "*memory*: the passage was learned, and its last, open sentence is the prompt. *neither*: that sentence alone."
