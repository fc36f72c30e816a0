"""A tokenizer for what invented people say."""

from __future__ import annotations

import pytest
from support.training_run import VOCAB_SIZE, people_text

from hope_serve.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer.train(people_text(), VOCAB_SIZE).save(path)
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_path):
    return Tokenizer.load(tokenizer_path)
