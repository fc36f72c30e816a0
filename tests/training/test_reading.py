"""Rows whose context must be read: what is weighted stands, word for word, before."""

from __future__ import annotations

import random
from importlib.resources import files

import pytest

from hope_serve.training.lessons.prose import Prose
from hope_serve.training.personas import PersonaFactory, Split
from hope_serve.training.reading import AGAIN_WEIGHT, ANSWER_WEIGHT, Reading, Row

TOKENS = 512


@pytest.fixture
def reading(tokenizer):
    """Plain text is a count upwards, so that nothing repeats by chance."""
    people = PersonaFactory(Split.TRAIN, seed=3)
    passages = files("hope_serve.training").joinpath("unrelated.txt").read_text()
    at = [20]

    def window(tokens):
        at[0] += tokens
        return list(range(at[0] - tokens, at[0]))

    return Reading(tokenizer, people, window, Prose({"books": passages}, random.Random(1)))


def test_a_row_has_exactly_the_tokens_asked_for_and_a_weight_for_each(reading, tokenizer):
    seen = set()
    for _ in range(40):
        row = reading.row(TOKENS)
        assert len(row.ids) == len(row.weights) == TOKENS
        assert row.weights[0] == 0.0
        seen |= set(row.weights)
    assert seen == {0.0, 1.0, AGAIN_WEIGHT, ANSWER_WEIGHT}


def test_rows_begin_as_documents_do_or_anywhere_and_some_behind_other_text(reading, tokenizer, monkeypatch):
    for kind in ("repeated", "echo", "pairs", "register", "passage", "sentences_again"):
        monkeypatch.setattr(reading, kind, lambda row, room: row.add([1] * room, AGAIN_WEIGHT))
    rows = [reading.row(TOKENS) for _ in range(200)]
    assert 60 < sum(row.ids[0] == tokenizer.doc for row in rows) < 140
    behind = [row.weights.index(AGAIN_WEIGHT) - 1 for row in rows]
    assert 40 < sum(tokens > 0 for tokens in behind) < 100
    assert TOKENS // 4 < max(behind) <= TOKENS // 2


@pytest.mark.parametrize("kind", ["repeated", "echo", "sentences_again", "pairs"])
def test_what_comes_again_stood_there_before(reading, kind):
    for _ in range(10):
        row = Row([], [])
        getattr(reading, kind)(row, TOKENS)
        spans = _spans(row, AGAIN_WEIGHT)
        assert spans
        for begin, end in spans:
            # With the token before it: that is what tells where in the context to look.
            wanted = row.ids[begin - 1 : end]
            assert _stands_before(row.ids, wanted, begin - 1)


@pytest.mark.parametrize("kind", ["register", "passage"])
def test_an_answer_stands_in_what_was_told(reading, tokenizer, kind):
    for _ in range(10):
        row = Row([], [])
        getattr(reading, kind)(row, TOKENS)
        spans = _spans(row, ANSWER_WEIGHT)
        assert spans
        for begin, end in spans:
            answer = tokenizer.decode(row.ids[begin:end]).strip()
            assert answer.lower() in tokenizer.decode(row.ids[:begin]).lower()


def test_without_prose_rows_are_of_the_other_kinds(tokenizer):
    people = PersonaFactory(Split.TRAIN, seed=3)
    reading = Reading(tokenizer, people, lambda n: [400] * n, None)
    assert all(len(reading.row(64).ids) == 64 for _ in range(20))


def test_names_of_people_are_of_their_side_of_the_split():
    train = {PersonaFactory(Split.TRAIN, seed=s).name().split()[0] for s in range(200)}
    held_out = {PersonaFactory(Split.HELD_OUT, seed=s).name().split()[0] for s in range(200)}
    assert train
    assert held_out
    assert not train & held_out


def _spans(row, weight):
    """(begin, end) of the runs of that weight."""
    edges = [i for i in range(1, len(row.ids)) if (row.weights[i] == weight) != (row.weights[i - 1] == weight)]
    return list(zip(edges[::2], [*edges[1::2], len(row.ids)], strict=False))


def _stands_before(ids, wanted, limit):
    return any(ids[i : i + len(wanted)] == wanted for i in range(limit))
