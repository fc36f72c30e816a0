"""The Transformer beside a HOPE model: as large, causal, and trained on the same rows."""

from __future__ import annotations

import json

import pytest
import torch
from support.training_run import write_run

from hope_serve.model.config import HopeConfig, LevelConfig, TitansConfig
from hope_serve.model.hope import HopeModel
from hope_serve.training.config import TrainConfig
from hope_serve.training.rival import Transformer, train
from hope_serve.training.rival_reader import RivalReader
from hope_serve.training.stream import BatchStream
from hope_serve.training.text import tokenize_files

CONFIG = HopeConfig(
    vocab_size=512,
    hidden_size=64,
    num_layers=2,
    titans=TitansConfig(num_heads=2),
    levels=(LevelConfig(hidden_size=128, chunk_size=32, rank=4), LevelConfig(hidden_size=128)),
)


def test_it_is_as_large_as_the_hope_model():
    own, other = (
        sum(p.numel() for p in m.parameters()) for m in (Transformer.of_equal_size(CONFIG), HopeModel(CONFIG))
    )
    assert own == pytest.approx(other, rel=0.01)


def test_it_sees_nothing_of_what_comes_later():
    torch.manual_seed(0)
    model = Transformer.of_equal_size(CONFIG)
    rows = torch.randint(0, 512, (1, 12))
    changed = rows.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 512
    one, other = model(rows), model(changed)
    torch.testing.assert_close(one[:, :8], other[:, :8])
    assert not torch.allclose(one[:, 8:], other[:, 8:])


def test_a_place_counts_from_where_attention_looks_not_from_the_rows_start():
    """The same words in the same order, behind a first token that both rows share."""
    torch.manual_seed(0)
    model = Transformer.of_equal_size(CONFIG)
    one, other = torch.tensor([[5, 9, 7]]), torch.tensor([[9, 5, 7]])
    assert not torch.allclose(model(one)[:, -1], model(other)[:, -1], atol=1e-5)


def test_it_gets_the_rows_of_the_run_beside_it(tokenizer_path, tokenizer, tmp_path):
    config = TrainConfig.load(write_run(tmp_path, tokenizer_path, steps=8))
    ids = tokenize_files(tokenizer, config.data.train)
    batches = zip(
        BatchStream(config, ids, first=4, progress=0.5),
        BatchStream(config, ids, first=4, progress=0.5, text_alone=True),
        range(3),
        strict=False,
    )
    for whole, alone, _ in batches:
        assert torch.equal(whole.text, alone.text)
        assert torch.equal(whole.weights, alone.weights)
        assert whole.episodes is not None
        assert alone.episodes is None


def test_a_run_ends_with_its_scores_and_a_longer_one_goes_on(tokenizer_path, tmp_path):
    config = TrainConfig.load(write_run(tmp_path, tokenizer_path, steps=8))
    out = train(config, seconds=2.0, rate=1e-3, out=tmp_path / "rival")
    first = json.loads((out / "scores.json").read_text())
    assert RivalReader.load(out).max_tokens == config.batch.text_tokens
    assert {"parameters", "repeated_second", "nll_0_64", "last_word", "tokens"} <= first.keys()
    train(config, seconds=first["seconds"] + 1.0, rate=1e-3, out=out)
    assert json.loads((out / "scores.json").read_text())["step"] > first["step"] > 0
