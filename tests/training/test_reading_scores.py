"""The figures of reading, on models whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hope_serve.training import reading_scores as room
from hope_serve.training.reading_scores import last_word_passages, reading_scores


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(room, "NUM_ROWS", 2)
    monkeypatch.setattr(room, "MAX_LAST_WORDS", 6)


def test_a_model_that_copies_scores_nothing_the_first_and_all_the_second_time(few, tokenizer):
    """It looks up what followed the last time the same token stood there, and is sure of that."""
    size = tokenizer.vocab_size

    def copier(rows):
        logits = torch.zeros(*rows.shape, size)
        for row, ids in enumerate(rows.tolist()):
            followers = {}
            for at, token in enumerate(ids):
                if token in followers:
                    logits[row, at, followers[token]] = 50.0
                if at + 1 < len(ids):
                    followers[token] = ids[at + 1]
        return logits

    # Runs of ids in a cycle longer than a passage: no token comes twice within one, and the next always follows.
    ids = np.array([6 + i % 900 for i in range(3000)], dtype=np.uint16)
    scores = reading_scores(copier, tokenizer, ids, "cpu")
    assert scores["repeated_first"] == pytest.approx(math.log(size), rel=1e-4)
    assert scores["repeated_second"] < 0.1
    assert scores["nll_0_64"] == pytest.approx(math.log(size), rel=1e-4)
    assert scores["nll_768_1024"] < scores["nll_512_768"]


def test_an_even_model_scores_the_logarithm_of_its_vocabulary_everywhere(few, tokenizer):
    ids = np.array(tokenizer.encode("The ferry leaves the harbour at nine. " * 400), dtype=np.uint16)
    scores = reading_scores(lambda rows: torch.zeros(*rows.shape, tokenizer.vocab_size), tokenizer, ids, "cpu")
    for name, value in scores.items():
        if name != "last_word":
            assert value == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-4), name
    assert scores["last_word"] == 0


def test_a_last_word_stands_in_its_passage_and_is_cut_from_its_end():
    sentence = "The keeper of the lighthouse counted the ships that passed him on that long and windy evening. "
    text = f"{sentence * 2}Nobody else had ever seen such a crowd of boats before the old lighthouse. {sentence * 4}"
    [(passage, word)] = last_word_passages(text, 10)[:1]
    assert word == " lighthouse"
    assert passage.endswith("before the old")
    assert "lighthouse" in passage
    assert last_word_passages("It was late. She went home.", 10) == []
