"""Servers that take little: a suite takes as much as they do, says how much, and leaves a dash where nothing fits."""

from __future__ import annotations

import pytest
from support.attention_checkpoint import converted
from support.server_running import connect, server_config

from hope_serve.evals.babi import Babi
from hope_serve.evals.continual import Course
from hope_serve.evals.language import Language
from hope_serve.evals.needle import Needle
from hope_serve.evals.progress import Bars
from hope_serve.evals.recall import Recall
from hope_serve.evals.streams import Amounts, permuted_digits
from hope_serve.evals.subject import Subject
from hope_serve.server.serve import running

SENTENCE = "The ferry leaves the harbour at nine and the gulls follow it past the lighthouse. "
SMALL = 0.01


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "ferry.txt"
    path.write_text(SENTENCE * 20)
    return path


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "last.txt"
    path.write_text(f"I like tea. My dog is called Biscuit\n{SENTENCE * 8} My sister lives in Bergen\nI like tea\n")
    return path


def by_title(report):
    return {table.title: table for table in report.tables}


async def test_windows_context_and_passages_are_as_long_as_the_server_takes(open_subject, text, passages):
    async with open_subject(max_prompt_tokens=100, max_adapt_tokens=64) as subject:
        report = await Language(files=(text,), lambada=passages, scale=SMALL).run(subject, None)
    assert report.failures == ()
    found = by_title(report)
    bits = found["Bits a byte"]
    assert bits.head == "windows of 64 tokens"
    assert bits.columns[1] == "context, 36 tokens before"
    assert all(cell > 0 for cell in bits.lines[0].cells)
    assert found["Nats by position"].head == "windows of 100 tokens"
    assert found["Nats by position"].columns[-1] == "to 128"
    (twice,) = found["A repeated passage"].lines
    assert twice.name == "50 tokens, twice in a row"
    assert all(nats > 0 for nats in twice.cells)
    last = found["last: the last word"]
    assert last.lines[0].count == 2
    assert "longer than the 100 tokens of a prompt: 1." in last.note


async def test_no_room_for_context_is_a_dash(open_subject, text):
    async with open_subject(max_prompt_tokens=64) as subject:
        report = await Language(files=(text,), scale=SMALL).run(subject, None)
    (line,) = by_title(report)["Bits a byte"].lines
    assert line.cells[1] is None
    assert line.cells[0] > 0 < line.cells[2]
    assert report.failures == ()


async def test_a_model_whose_context_ends_is_read_up_to_its_end(tmp_path, text):
    checkpoint, _ = converted(tmp_path / "attention")
    async with running(server_config(checkpoint, tmp_path)) as server, connect(server) as client:
        with Bars() as bars:
            subject = Subject(client, await client.get_model(), bars)
            report = await Language(files=(text,), scale=SMALL).run(subject, None)
    assert subject.max_tokens == 128
    assert report.failures == ()
    assert by_title(report)["Bits a byte"].head == "windows of 128 tokens"
    assert by_title(report)["A repeated passage"].lines[0].name.startswith("64 tokens")


async def test_needles_longer_than_a_prompt_are_learned_and_not_read(open_subject):
    async with open_subject(max_prompt_tokens=120, max_adapt_tokens=64) as subject:
        report = await Needle(lengths=(128, 256), scale=SMALL).run(subject, None)
    (table,) = report.tables
    assert [table.cell(line.name, "all in the prompt") for line in table.lines] == [None, None]
    assert all(table.cell(line.name, "memory") is not None for line in table.lines)
    assert "at most 64 tokens an Adapt" in table.note
    assert report.failures == ()


async def test_stories_longer_than_a_prompt_are_learned_and_not_read(open_subject):
    async with open_subject(max_prompt_tokens=40, max_adapt_tokens=32) as subject:
        report = await Babi(scale=SMALL).run(subject, None)
    (table,) = report.tables
    assert {table.cell(line.name, "all in the prompt") for line in table.lines} == {None}
    assert report.failures == ()


async def test_examples_longer_than_an_adapt_come_in_several(open_subject):
    stream = permuted_digits(amounts=Amounts(taught=1, tested=1), steps=1, seed=1)
    async with open_subject(max_prompt_tokens=200, max_adapt_tokens=256) as subject:
        table, _ = (await Course(subject, stream, 2).run()).tables()
        assert [memory.version > 1 async for memory in subject.client.list_memories()] == [True]
    assert table.cell("all in the prompt", "step 1") is None
    assert table.cell("memory", "step 1") is not None
    assert "at most 3 examples an Adapt" in table.note  # ten in halves: five, then two and three
    assert subject.errors == []


@pytest.mark.nightly
@pytest.mark.timeout(600)
async def test_recall_weighs_windows_that_fit(open_subject, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "books_test.txt").write_text(SENTENCE * 200)
    async with open_subject(max_prompt_tokens=300, max_adapt_tokens=128) as subject:
        report = await Recall(text=folder, scale=SMALL).run(subject, subject)
    found = by_title(report)
    assert found["Bits a byte"].head == "windows of 300 tokens"
    assert all(cell > 0 for cell in found["Bits a byte"].lines[0].cells)
    assert found["A text's second part"].lines[0].name == "300 tokens after 1024 told"
    assert found["A text's second part"].lines[0].cells[0] is not None
    assert report.failures == ()
