"""Rows of cases put to a server by every arm: each history is taught once, each prompt asked once."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from hope_serve.evals.arms import Arm
from hope_serve.evals.report import Cell, Line, Table, Unit
from hope_serve.evals.subject import Reply, Subject
from hope_serve.training.lessons.cases import Case, Row

Told = tuple[str, ...]
_NONE = Reply(None, 0)


class Asked(NamedTuple):
    """Everything that an answer depends on. told: what the memory has learned; empty for none."""

    source: bool
    told: Told
    prompt: str


class Exam:
    """Teaches, asks and judges.

    Args:
        source: a server of the source model, for the arms that ask it; None leaves these out.
    """

    def __init__(self, subject: Subject, arms: Sequence[Arm], source: Subject | None = None) -> None:
        self._subject, self._source = subject, source
        self._arms = [arm for arm in arms if source or not arm.source]
        self._users: dict[Told, str] = {}
        self._replies: dict[Asked, Reply] = {}

    async def table(self, title: str, rows: Sequence[Row], *, note: str = "") -> Table:
        """The shares of every row by arm. A row whose prompts are refused, for their length or else, has none there."""
        await self._teach([case for row in rows for case in row.cases])
        await self._ask(rows)
        lines = [Line(name=_named(row), cells=self._cells(row), count=_num_questions(row)) for row in rows if row.cases]
        columns = tuple(arm.name for arm in self._arms)
        return Table(title=title, head="share of answers", columns=columns, lines=tuple(lines), note=note)

    async def costs(self, title: str, rows: Sequence[Row], *, times: int) -> Table:
        """Tokens of the prompt and time to the first token, of ``times`` questions of each row asked one at a time."""
        lines = []
        for row in rows:
            pairs = [(case, question) for case in row.cases for question in case.asked][:times]
            tokens: list[Cell] = []
            seconds: list[Cell] = []
            for arm in self._arms:
                keys = [_asked(arm, case, question.prompt) for case, question in pairs]
                read = [self._replies[key] for key in keys]
                if not read or any(reply.text is None for reply in read):
                    tokens.append(None)
                    seconds.append(None)
                    continue
                tokens.append(statistics.mean(reply.prompt_tokens for reply in read))
                asked = self._asker(arm)
                seconds.append(await asked.tried(f"{row.name}: first token", self._first_token(asked, keys)))
            lines.append(Line(name=f"{row.name}: tokens a prompt", cells=tuple(tokens)))
            lines.append(Line(name=f"{row.name}: ms to the first token", cells=tuple(seconds)))
        columns = tuple(arm.name for arm in self._arms)
        return Table(title=title, head="a query", columns=columns, lines=tuple(lines), unit=Unit.NUMBER)

    async def bytes_table(self, rows: Sequence[Row]) -> Table:
        """What the memories of each row's first case weigh."""
        lines = []
        for row in rows:
            told = told_texts(row.cases[0])
            size = await self._subject.tried(f"{row.name}: size", self._memory_bytes(told))
            lines.append(Line(name=row.name, cells=(size, float(sum(map(len, told))) if size else None)))
        columns = ("bytes in the store", "characters told")
        return Table(title="A memory's size", head="after", columns=columns, lines=tuple(lines), unit=Unit.NUMBER)

    def said(self, row: Row, arm: Arm) -> list[tuple[str, str]]:
        """Questions of a row and what was said to them."""
        pairs = [(case, question) for case in row.cases for question in case.asked]
        return [(q.prompt, self._replies[_asked(arm, case, q.prompt)].text or "") for case, q in pairs]

    async def _teach(self, cases: Sequence[Case]) -> None:
        histories = {told_texts(case): None for case in cases}
        new = [told for told in histories if told and told not in self._users]
        users = await self._subject.gather("teach", (self._subject.taught(told) for told in new))
        self._users |= {told: user for told, user in zip(new, users, strict=True) if user is not None}

    async def _ask(self, rows: Sequence[Row]) -> None:
        for arm in self._arms:
            wanted = {
                _asked(arm, case, question.prompt): None
                for row in rows
                for case in row.cases
                for question in case.asked
            }
            new = [asked for asked in wanted if asked not in self._replies]
            subject = self._asker(arm)
            replies = await subject.gather(arm.name, (self._put(subject, asked) for asked in new))
            self._replies |= {asked: reply or _NONE for asked, reply in zip(new, replies, strict=True)}

    async def _memory_bytes(self, told: Told) -> Cell:
        user = self._users.get(told)
        return float(await self._subject.memory_bytes(user)) if user is not None else None

    def _asker(self, arm: Arm) -> Subject:
        return self._source if arm.source and self._source else self._subject

    async def _put(self, subject: Subject, asked: Asked) -> Reply:
        if asked.told and asked.told not in self._users:  # teaching it was refused
            return _NONE
        return await subject.ask(asked.prompt, self._users[asked.told] if asked.told else "")

    async def _first_token(self, subject: Subject, keys: Sequence[Asked]) -> float:
        """Milliseconds, the median."""
        seconds = []
        for key in keys:
            seconds.append(await subject.first_token_seconds(key.prompt, self._users[key.told] if key.told else ""))
        return 1000 * statistics.median(seconds)

    def _cells(self, row: Row) -> tuple[Cell, ...]:
        return tuple(self._share(row, arm) for arm in self._arms)

    def _share(self, row: Row, arm: Arm) -> Cell:
        right = []
        for case in row.cases:
            for question in case.asked:
                said = self._replies[_asked(arm, case, question.prompt)].text
                if said is None:
                    return None
                right.append(row.judge(question, said))
        return sum(right) / len(right) if right else None


def told_texts(case: Case) -> Told:
    """What a case tells, an Adapt each; the turns of a conversation are its lines."""
    return tuple(adapt.text or "\n".join(text for _, text in adapt.turns) for adapt in case.adapts)


def _asked(arm: Arm, case: Case, question: str) -> Asked:
    told = told_texts(case)
    return Asked(arm.source, told if arm.memory else (), arm.prompt(told, question))


def _num_questions(row: Row) -> int:
    return sum(len(case.asked) for case in row.cases)


def _named(row: Row) -> str:
    return f"{row.name} (low is good)" if row.low_is_good else row.name
