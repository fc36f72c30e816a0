"""``continual``: classes that come step after step; what is known of all of them after each, and what was forgotten.

A label is chosen among those seen so far: the likeliest continuation of the question.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hope_serve.client import Message
from hope_serve.errors import InvalidRequest
from hope_serve.evals.report import Cell, Chart, Line, Report, Table
from hope_serve.evals.retrieval import Neighbours
from hope_serve.evals.streams import Amounts, Example, Stream, Task, intents, permuted_digits, split_digits
from hope_serve.evals.subject import Subject, is_too_long
from hope_serve.evals.suite import failures_of, on_what

CLASSES, TAUGHT, TESTED = 150, 10, 20
TESTS_A_STEP = 200
STEPS = (5, 10)
EXAMPLES_AN_ADAPT = 16
MEMORY, PROMPT, NEAREST, NEITHER = "memory", "all in the prompt", "nearest neighbour", "neither"
ARMS = (MEMORY, PROMPT, NEAREST, NEITHER)


@dataclass(frozen=True, kw_only=True)
class Continual:
    """Options.

    Args:
        file: intents in CLINC150's form; None leaves them out.
        digits: run the streams of split and permuted digits.
        scale: of the number of classes and tests; 1 takes 150 classes.
    """

    scale: float = 1.0
    seed: int = 7
    file: Path | None = None
    digits: bool = True
    name: str = "continual"

    def __post_init__(self) -> None:
        if self.file is None and not self.digits:
            raise InvalidRequest("--file", "there is nothing to run; name a file, or leave --no-digits out")

    async def run(self, subject: Subject, _source: Subject | None) -> Report:
        """See ``Suite``."""
        tables, charts = [], []
        for stream in self._streams():
            course = await Course(subject, stream, self._tests).run()
            tables += course.tables()
            charts.append(course.chart())
        settings = asdict(self) | {"file": str(self.file)}
        return Report(
            suite=self.name,
            model=on_what(subject),
            settings=settings,
            tables=tuple(tables),
            charts=tuple(charts),
            failures=failures_of(subject),
        )

    @property
    def _tests(self) -> int:
        return max(4, round(TESTS_A_STEP * self.scale))

    def _streams(self) -> list[Stream]:
        share = min(1.0, 4 * self.scale)
        amounts = Amounts(taught=max(2, round(TAUGHT * share)), tested=max(1, round(TESTED * share)))
        streams = []
        if self.file is not None:
            classes = max(10, round(CLASSES * self.scale))
            streams += [
                intents(self.file, steps=steps, classes=classes, amounts=amounts, seed=self.seed) for steps in STEPS
            ]
        if self.digits:
            streams.append(split_digits(amounts=amounts, seed=self.seed))
            streams.append(permuted_digits(amounts=amounts, steps=STEPS[0], seed=self.seed))
        return streams


class Course:
    """One stream, learned and tested step by step by every arm. ``tests``: at most so many questions after a step."""

    def __init__(self, subject: Subject, stream: Stream, tests: int) -> None:
        self._subject, self._stream, self._tests = subject, stream, tests
        self._nearest = Neighbours(of_letters="digit" in stream.name)
        self._labels: list[str] = []
        self._examples: list[Example] = []
        self._taught = True
        self._most = 0
        """Examples in the largest Adapt."""
        self._shares: dict[str, list[list[Cell]]] = {arm: [] for arm in ARMS}
        """By arm: after each step, the share of right answers to each step's own tests so far."""

    async def run(self) -> Course:
        """Teach each step, and ask about all so far."""
        user = self._subject.newcomer()
        for index, task in enumerate(self._stream.tasks):
            await self._learn(user, task)
            tested = self._chosen(self._stream.tasks[: index + 1])
            for arm in ARMS:
                self._shares[arm].append(await self._share(arm, user, tested))
        return self

    def tables(self) -> list[Table]:
        """Accuracy over all classes so far after each step, and what was forgotten of the steps."""
        steps = tuple(f"step {at + 1}" for at in range(len(self._stream.tasks)))
        reached = [Line(name=arm, cells=tuple(_mean(row) for row in self._shares[arm])) for arm in ARMS]
        forgot = [Line(name=arm, cells=(_forgetting(self._shares[arm]),)) for arm in ARMS]
        return [
            Table(
                title=f"{self._stream.name}: right after",
                head="of all so far",
                columns=steps,
                lines=tuple(reached),
                note=f"*memory*: at most {self._most} examples an Adapt. A dash: longer than the model takes.",
            ),
            Table(title=f"{self._stream.name}: forgotten", head="", columns=("mean of steps",), lines=tuple(forgot)),
        ]

    def chart(self) -> Chart:
        """Accuracy by step."""
        series = {
            arm: tuple((float(at), 100 * mean) for at, row in enumerate(rows, 1) if (mean := _mean(row)) is not None)
            for arm, rows in self._shares.items()
        }
        return Chart(title=f"{self._stream.name}: all classes so far", x="step", y="% right", series=series)

    async def _learn(self, user: str, task: Task) -> None:
        pieces = [task.taught[at : at + EXAMPLES_AN_ADAPT] for at in range(0, len(task.taught), EXAMPLES_AN_ADAPT)]
        with self._subject.bars.stage(f"{self._stream.name}: teach", len(pieces)) as step:
            for piece in pieces:
                taught = await self._subject.tried(f"{self._stream.name}: teach", self._teach(user, piece))
                self._taught = self._taught and bool(taught)
                step()
        for example in task.taught:
            self._nearest.add(example.text, example.label)
            if example.label not in self._labels:
                self._labels.append(example.label)
        self._examples += task.taught

    async def _teach(self, user: str, examples: Sequence[Example]) -> bool:
        """One Adapt, or in halves what one does not take; True."""
        try:
            await self._subject.client.adapt(user, self._turns(examples))
            self._most = max(self._most, len(examples))
        except InvalidRequest as error:
            if not is_too_long(error) or len(examples) < 2:
                raise
            middle = len(examples) // 2
            return await self._teach(user, examples[:middle]) and await self._teach(user, examples[middle:])
        return True

    def _chosen(self, tasks: Sequence[Task]) -> list[list[Example]]:
        """Tests of every step, so many that all together are no more than may be."""
        draw = random.Random(len(tasks))  # noqa: S311 - a reproducible draw, nothing secret
        each = max(1, self._tests // len(tasks))
        return [draw.sample(task.tested, min(each, len(task.tested))) for task in tasks]

    async def _share(self, arm: str, user: str, tested: Sequence[Sequence[Example]]) -> list[Cell]:
        """Of each step's tests, the share that the arm gives the right label."""
        texts = [example.text for examples in tested for example in examples]
        said = await self._labelled(arm, user, texts)
        shares: list[Cell] = []
        for examples in tested:
            labels, said = said[: len(examples)], said[len(examples) :]
            right = sum(label == one.label for label, one in zip(labels, examples, strict=True))
            shares.append(None if None in labels else right / len(examples))
        return shares

    async def _labelled(self, arm: str, user: str, texts: Sequence[str]) -> list[str | None]:
        if arm == MEMORY and not self._taught:
            return [None] * len(texts)
        if arm == NEAREST:
            return [self._nearest.label(text) for text in texts]
        before = self._turns(self._examples) if arm == PROMPT else []
        owner = user if arm == MEMORY else ""
        calls = (self._likeliest([*before, *self._asked(text)], owner) for text in texts)
        return await self._subject.gather(f"{self._stream.name}: {arm}", calls)

    async def _likeliest(self, prompt: Sequence[Message], user: str) -> str | None:
        """The label with the highest log-probability a token; None: the prompt is longer than the model takes."""
        try:
            scored = await self._subject.client.score(prompt, self._labels, user_id=user)
        except InvalidRequest as error:
            if not is_too_long(error):
                raise
            return None
        means = [score.logprob / len(score.token_logprobs) for score in scored]
        return self._labels[max(range(len(means)), key=means.__getitem__)]

    def _turns(self, examples: Sequence[Example]) -> list[Message]:
        turns = ((*self._asked(example.text), Message(role="assistant", text=example.label)) for example in examples)
        return [message for pair in turns for message in pair]

    def _asked(self, text: str) -> tuple[Message]:
        return (Message(role="user", text=self._stream.question.replace("{x}", text)),)


def _mean(row: Sequence[Cell]) -> Cell:
    known = [cell for cell in row if cell is not None]
    return sum(known) / len(known) if len(known) == len(row) else None


def _forgetting(rows: Sequence[Sequence[Cell]]) -> Cell:
    """The mean over all steps but the last of the best share that was reached, less the one at the end."""
    lost: list[float] = []
    for step in range(len(rows) - 1):
        history = [row[step] for row in rows[step:]]
        known = [cell for cell in history if cell is not None]
        if len(known) < len(history):
            return None
        lost.append(max(known) - known[-1])
    return sum(lost) / len(lost) if lost else None
