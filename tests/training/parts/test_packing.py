"""Lessons as rows: cut where the server's chunks end, questions blind to one another."""

from __future__ import annotations

import pytest

from hope_serve.model.attention_learn import PADDING, SHARED
from hope_serve.model.cadence import Cadence
from hope_serve.training.parts.packing import Bucket, DoesNotFit, ask_row, tell_row, told_tensors
from hope_serve.training.parts.speech import Asked


def bucket(*, chunks=2, tokens=8, learned=None):
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
    )


def test_chunks_end_where_the_servers_cadence_fires():
    texts = [list(range(10, 16)), list(range(20, 29)), list(range(30, 33))]
    told = told_tensors([tell_row(texts, noise=(), bucket=bucket())], bucket())
    cadence, lengths = Cadence(chunk_sizes=(8,)), []
    for ids in texts:
        left = len(ids) - 1
        while left:
            length = min(left, cadence.room())
            lengths.append((cadence.updates()[0], length))
            cadence, left = cadence.after(length), left - length
    for chunk in range(2):
        taught = int((told.segments[0, chunk] != PADDING).sum())
        assert taught == sum(length for at, length in lengths if at == chunk)


def test_every_position_carries_its_texts_next_token():
    texts = [[10, 11, 12, 13], [20, 21, 22, 23, 24, 25, 26]]
    row = tell_row(texts, noise=(), bucket=bucket())
    assert row.inputs == [10, 11, 12, 20, 21, 22, 23, 24, 25]
    assert row.targets == [11, 12, 13, 21, 22, 23, 24, 25, 26]
    assert row.positions == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert row.segments == [1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_noise_fills_the_chunks_to_the_end_and_no_further():
    row = tell_row([[1, 2, 3]], noise=iter([[4] * 9, [5] * 9, [6] * 9]), bucket=bucket(learned=1))
    assert len(row.inputs) == 16


def test_what_does_not_fit_is_refused_whole():
    with pytest.raises(DoesNotFit, match="20 positions of 16"):
        tell_row([list(range(9)), list(range(13))], noise=(), bucket=bucket())
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
