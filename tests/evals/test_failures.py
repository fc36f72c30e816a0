"""What was measured stays: a refusal leaves a dash and a line about itself; a server that is gone is left alone."""

from __future__ import annotations

import pytest

from hope_serve.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from hope_serve.evals.arms import MEMORY, NEITHER
from hope_serve.evals.exam import Exam
from hope_serve.evals.language import Language
from hope_serve.evals.report import Report
from hope_serve.evals.suite import failures_of
from hope_serve.training.lessons.cases import Case, Row
from hope_serve.training.lessons.lesson import Adapt, Question

SENTENCE = "The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. "


def row(told):
    case = Case(adapts=(Adapt(text=told),), asked=(Question("When does the ferry leave?", "", ("nine",)),))
    return Row(name=told, cases=(case,), judge=lambda question, said: True)


def failing(call, error, when):
    """``call``, but for what ``when`` says of its arguments."""

    async def called(*given, **options):
        if when(*given):
            raise error
        return await call(*given, **options)

    return called


async def test_a_refused_lesson_leaves_the_other_rows(open_subject, monkeypatch):
    async with open_subject() as subject:
        refused = failing(subject.client.adapt, FailedPrecondition("not today"), lambda user, text: "tea" in text)
        monkeypatch.setattr(subject.client, "adapt", refused)
        rows = [row("I like tea."), row("I like milk.")]
        table = await Exam(subject, (MEMORY, NEITHER)).table("Title", rows)
        assert [line.cells for line in table.lines] == [(None, 1.0), (1.0, 1.0)]
        assert failures_of(subject) == ("teach: not today",)


async def test_a_refused_text_leaves_the_other_texts(open_subject, monkeypatch, tmp_path):
    paths = (tmp_path / "one.txt", tmp_path / "two.txt")
    for path, many in zip(paths, ("harbour ", "sister "), strict=True):
        path.write_text((SENTENCE + many * 8) * 60)
    async with open_subject() as subject:
        (sister,) = await subject.client.tokenize(" sister")
        late = failing(
            subject.client.score, DeadlineExceeded("too late"), lambda prompt, rest: rest[0].count(sister) > 40
        )
        monkeypatch.setattr(subject.client, "score", late)
        report = await Language(files=paths, scale=0.01).run(subject, None)
    bits, positions, _ = report.tables
    assert all(cell > 0 for cell in bits.lines[0].cells)
    assert bits.lines[1].cells == (None, None, None)
    assert positions.cell("one", "to 64") > 0
    assert any(line.startswith("two: alone: too late") for line in report.failures)
    assert all(line.startswith("two: ") for line in report.failures)


async def test_a_server_that_is_gone_is_asked_nothing_more(open_subject, monkeypatch):
    async with open_subject() as subject:
        asked = []

        async def gone(*given, **options):
            asked.append(given)
            raise Unavailable("no server there")

        exam = Exam(subject, (NEITHER, MEMORY))
        before = await exam.table("Before", [row("I like milk.")])
        monkeypatch.setattr(subject.client, "generate", gone)
        after = await exam.table("After", [row(f"I like {what}.") for what in ("tea", "sugar", "dogs")])
        assert before.lines[0].cells == (1.0, 1.0)
        assert {line.cells for line in after.lines} == {(1.0, None)}
        assert 1 <= len(asked) <= 4  # as many as were under way at a time
        assert failures_of(subject) in (
            ("memory: no server there",),
            (f"memory: no server there ({len(asked)} times)",),
        )


def test_a_report_says_what_is_not_in_it():
    report = Report(suite="babi", model={}, settings={}, tables=(), failures=("teach: not today (2 times)",))
    assert report.as_markdown().endswith("Not measured:\n\n- teach: not today (2 times)\n")
    assert report.as_json()["failures"] == ("teach: not today (2 times)",)
    assert report.is_empty


async def test_errors_of_the_suite_itself_are_not_hidden(open_subject):
    async with open_subject() as subject:

        async def wrong():
            raise KeyError("a fault")

        with pytest.raises(KeyError):
            await subject.tried("stage", wrong())
