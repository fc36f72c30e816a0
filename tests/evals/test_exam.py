"""Rows of cases on a real server: taught once, asked once by every arm, judged by the row's own judge."""

from __future__ import annotations

from hope_serve.evals.arms import ARMS, MEMORY, NEITHER, SOURCE_ARMS
from hope_serve.evals.exam import Exam
from hope_serve.training.lessons.cases import Case, Row
from hope_serve.training.lessons.lesson import Adapt, Question

ASKED = (Question("When does the ferry leave?", "", ("nine",)), Question("Who follows it?", "", ("gulls",)))
LONG = Adapt(text="The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. " * 3)
UNLIKE = Adapt(text=" ".join(map(str, range(1000, 1100))) + ".")
SHORT = Adapt(text="My dog is called Biscuit.")


def always(_question, _said):
    return True


def row(name, judge, *adapts):
    return Row(name=name, cases=(Case(adapts=adapts, asked=ASKED),), judge=judge)


async def test_two_rows_of_one_history_teach_it_once(open_subject):
    async with open_subject() as subject:
        exam = Exam(subject, (MEMORY, NEITHER))
        rows = [
            row("right", always, LONG),
            row("wrong", lambda q, said: False, LONG),
            row("other", always, SHORT, LONG),
        ]
        table = await exam.table("Title", rows)
        assert sorted([memory.version async for memory in subject.client.list_memories()]) == [1, 2]
        assert [line.cells for line in table.lines] == [(1.0, 1.0), (0.0, 0.0), (1.0, 1.0)]
        assert [line.count for line in table.lines] == [2, 2, 2]
        assert [question for question, _ in exam.said(rows[0], MEMORY)] == [q.prompt for q in ASKED]
        sizes = await exam.bytes_table(rows[:1])
        assert sizes.cell("right", "bytes in the store") > 0


async def test_what_does_not_fit_the_prompt_has_no_figure(open_subject):
    async with open_subject(max_prompt_tokens=150) as subject:
        exam = Exam(subject, ARMS)
        rows = [row("long", always, LONG, UNLIKE)]
        table = await exam.table("Title", rows)
        assert table.cell("long", "all in the prompt") is None
        assert table.cell("long", "memory") == 1.0
        costs = await exam.costs("Costs", rows, times=1)
        assert costs.cell("long: tokens a prompt", "all in the prompt") is None
        read = {arm.name: costs.cell("long: tokens a prompt", arm.name) for arm in ARMS}
        assert read["BM25 in the prompt"] == read["memory + BM25"] > read["memory"] == read["neither"]
        assert costs.cell("long: ms to the first token", "memory") > 0


async def test_the_source_is_asked_where_there_is_one(open_subject):
    async with open_subject() as subject:
        arms = (MEMORY, *SOURCE_ARMS)
        assert (await Exam(subject, arms).table("", [row("a", always, SHORT)])).columns == ("memory",)
        table = await Exam(subject, arms, subject).table("", [row("a", always, SHORT)])
        assert table.columns == tuple(arm.name for arm in arms)
