"""Lessons as rows: cut where the server's chunks end, questions blind to one another."""

from __future__ import annotations

import pytest

from hope_serve.model.attention_learn import PADDING, SHARED
from hope_serve.model.cadence import Cadence
from hope_serve.training.parts.packing import Bucket, DoesNotFit, ask_row, tell_row, told_tensors
from hope_serve.training.parts.speech import Asked


def bucket(*, chunks=2, tokens=8, learned=None, past=1):
    return Bucket(
        name="tiny",
        users=1,
        chunks=chunks,
        chunk_tokens=tokens,
        fact_chunks=learned or chunks,
        learned_chunks=learned or chunks,
        ask_tokens=24,
        other_tokens=8,
        facts=(1, 2),
        past_chunks=past,
    )


def test_chunks_end_where_the_servers_cadence_fires():
    texts = [list(range(10, 16)), list(range(20, 31)), list(range(30, 33)), list(range(40, 49))]
    told = told_tensors([tell_row(texts, noise=(), bucket=bucket(chunks=5))], bucket(chunks=5))
    cadence, lengths = Cadence(chunk_sizes=(8,), closes=True), []
    for ids in texts:
        left = len(ids) - 1
        while left:
            length = min(left, cadence.room())
            lengths.append((cadence.updates()[0], length))
            cadence, left = cadence.after(length), left - length
        cadence = cadence.at_end()
    assert lengths == [(0, 5), (1, 8), (2, 2), (3, 2), (4, 8)]
    for chunk in range(5):
        taught = int((told.segments[0, chunk] != PADDING).sum())
        assert taught == sum(length for at, length in lengths if at == chunk)


def test_every_position_carries_its_texts_next_token():
    texts = [[10, 11, 12, 13], [20, 21, 22, 23, 24, 25, 26]]
    row = tell_row(texts, noise=(), bucket=bucket())
    empty = [0] * 5
    assert row.inputs == [10, 11, 12, *empty, 20, 21, 22, 23, 24, 25, 0, 0]
    assert row.targets == [11, 12, 13, *empty, 21, 22, 23, 24, 25, 26, 0, 0]
    assert row.positions == [0, 1, 2, *empty, 0, 1, 2, 3, 4, 5, 0, 0]
    assert row.segments == [1, 1, 1, *[PADDING] * 5, 2, 2, 2, 2, 2, 2, PADDING, PADDING]
    assert row.mask == [1, 1, 1, *empty, 1, 1, 1, 1, 1, 1, 0, 0]


def test_noise_fills_the_chunks_to_the_end_and_no_further():
    row = tell_row([[1, 2, 3]], noise=iter([[4] * 9, [5] * 9, [6] * 9]), bucket=bucket(learned=1))
    assert len(row.inputs) == 16
    assert set(row.inputs[8:]) == {4}


def test_what_does_not_fit_is_refused_whole():
    with pytest.raises(DoesNotFit, match="24 positions of 16"):
        tell_row([list(range(9)), list(range(13))], noise=(), bucket=bucket())
    with pytest.raises(DoesNotFit, match="spans more than 1 chunks"):
        tell_row([list(range(10))], noise=(), bucket=bucket(past=0))
    with pytest.raises(DoesNotFit, match="spans more than 2 chunks"):
        tell_row([list(range(20))], noise=(), bucket=bucket(chunks=3))


def test_answers_carry_their_weights_and_questions_none():
    asked = [Asked([1, 2, 3, 7], [8, 9], [5.0, 1.0]), Asked([1, 2, 4], [8], [2.0])]
    row, held = ask_row([1, 2], asked, 24)
    assert held == 2
    assert row.segments == [SHARED, SHARED, 1, 1, 1, 2]
    assert row.inputs == [1, 2, 3, 7, 8, 4]
    assert [(t, w) for t, w in zip(row.targets, row.mask, strict=True) if w] == [(8, 5.0), (9, 1.0), (8, 2.0)]
    assert row.positions == [0, 1, 2, 3, 4, 2]


def test_a_question_without_the_common_beginning_keeps_every_question_whole():
    row, _ = ask_row([1, 2], [Asked([1, 2, 3], [8], [1.0]), Asked([5], [6], [1.0])], 24)
    assert SHARED not in row.segments
    assert row.inputs == [1, 2, 3, 5]
