"""Streams of classes: every class in one step, tests of no taught text, digits that can be told apart."""

from __future__ import annotations

import json

import pytest

from hope_serve.errors import InvalidRequest
from hope_serve.evals.retrieval import Neighbours
from hope_serve.evals.streams import DIGITS, Amounts, intents, permuted_digits, split_digits

AMOUNTS = Amounts(taught=6, tested=3)


@pytest.fixture
def file(tmp_path):
    def rows(part):
        return [[f"{part} {word} {i}", f"label_{word}"] for word in "abcdefghij" for i in range(8)]

    path = tmp_path / "intents.json"
    path.write_text(json.dumps({"train": rows("train"), "test": rows("test"), "val": []}))
    return path


def test_every_class_comes_in_one_step(file):
    stream = intents(file, steps=3, classes=10, amounts=AMOUNTS, seed=1)
    labels = [{example.label for example in task.taught} for task in stream.tasks]
    assert sorted(map(len, labels)) == [3, 3, 4]
    assert set.union(*labels) == {f"label {word}" for word in "abcdefghij"}
    for task in stream.tasks:
        assert {e.label for e in task.tested} == {e.label for e in task.taught}
        assert all(e.text.startswith("test") for e in task.tested)
        assert len(task.taught) == 6 * len({e.label for e in task.taught})


def test_more_classes_than_there_are_and_other_forms_are_refused(file, tmp_path):
    with pytest.raises(InvalidRequest, match="10 classes, and 11"):
        intents(file, steps=2, classes=11, amounts=AMOUNTS, seed=1)
    for content, words in (("[]", "train"), ('{"train": []}', "no 'test'"), ("no", "truncated")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(InvalidRequest, match=words):
            intents(tmp_path / "bad.json", steps=2, classes=2, amounts=AMOUNTS, seed=1)


def test_digits_can_be_told_apart_by_their_dots():
    amounts = Amounts(taught=5, tested=10)
    for stream in (split_digits(amounts=amounts, seed=2), permuted_digits(amounts=amounts, steps=3, seed=2)):
        nearest = Neighbours(of_letters=True)
        for task in stream.tasks:
            for example in task.taught:
                nearest.add(*example)
        tested = [example for task in stream.tasks for example in task.tested]
        right = sum(nearest.label(example.text) == example.label for example in tested)
        assert right / len(tested) > 0.8


def test_digits_are_split_in_pairs_or_come_again_in_another_order():
    split = split_digits(amounts=AMOUNTS, seed=2)
    assert [sorted({e.label for e in task.taught}) for task in split.tasks[:2]] == [["one", "zero"], ["three", "two"]]
    permuted = permuted_digits(amounts=AMOUNTS, steps=2, seed=2)
    assert all({e.label for e in task.taught} == set(DIGITS) for task in permuted.tasks)
    assert split.tasks != split_digits(amounts=AMOUNTS, seed=3).tasks
