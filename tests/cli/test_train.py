"""``hope-serve train``: what it refuses before the first step."""

from __future__ import annotations

import pytest
from support.training_run import people_text, write_run

from hope_serve.tokenizer import Tokenizer


@pytest.fixture
def run(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    Tokenizer.train(people_text(20), 400).save(tokenizer)
    return write_run(tmp_path / "home", tokenizer, steps=2)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 2", "steps = 0", ("steps is 0", "[1, 1e+09]", "schedule")),
        ("vocab_size = 400", "vocab_size = 4096", ("model.vocab_size is 4096", "tokenizer.json has 400")),
        ('"valid.txt"', '"none.txt"', ("data.valid", "none.txt is not there")),
        ("text_tokens = 48", "text_tokens = 100000", ("a window takes 100001", "name more text")),
        ("[model]", "[model", ("line",)),
    ],
)
def test_a_run_that_cannot_be_made_is_refused_by_file_and_field(hope, run, old, new, words):
    run.write_text(run.read_text().replace(old, new))
    said = hope("train", run)
    assert said.code == 2
    for word in (str(run), *words):
        assert word in said.err


def test_a_file_that_is_not_there_is_named(hope, tmp_path):
    said = hope("train", tmp_path / "none.toml")
    assert said.code == 2
    assert "none.toml" in said.err
