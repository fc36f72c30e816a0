"""Meta-training of a memory part on a small base: it learns, goes on where it stopped, and says what is wrong."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from support.other_makers import hugging_face

from hope_serve.convert.read import read_source
from hope_serve.model.parts import load_part
from hope_serve.training.parts.batches import bucket_order
from hope_serve.training.parts.buckets import BUCKETS, TIMES, batch_tokens, shrunk
from hope_serve.training.parts.options import from_toml, parse
from hope_serve.training.parts.train import Trainer, run

SENTENCES = "The rain fell on the harbour all day. Nobody spoke of the ship again. She closed the door behind her. "


@pytest.fixture
def settings(tmp_path):
    hugging_face(tmp_path / "base", "qwen2", tie_word_embeddings=True, max_position_embeddings=2048)
    text = tmp_path / "text"
    text.mkdir()
    for name in ("books_train", "dialogue_train", "books_test"):
        (text / f"{name}.txt").write_text(SENTENCES * 200)
    path = tmp_path / "run.toml"
    path.write_text(
        'base = "base"\ntext = "text"\nout = "out/part.safetensors"\nsteps = 2\nbatches_a_step = 1\n'
        'users_divisor = 48\ngeneral_rows = 3\nworkers = 0\nlog_every = 1\nwarmup = 1\ndevice = "cpu"\n'
    )
    return path


def test_a_run_leaves_a_part_of_its_base_and_a_log(settings, tmp_path):
    trainer = Trainer(from_toml(settings))
    before = {name: t.detach().clone() for name, t in trainer.part.items()}
    trainer.train()
    source = read_source(tmp_path / "base")
    part = load_part(tmp_path / "out" / "part.safetensors", source.architecture.shape, base=source.identity.fingerprint)
    changed = {name for name, t in part.tensors.items() if not torch.allclose(t, before[name], atol=1e-7)}
    assert {"projection", "log_rate", "start.down.outer", "start.query.outer"} <= changed
    records = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1.0, 2.0]
    assert all(record["tokens a second"] > 0 for record in records)


def test_an_interrupted_run_goes_on_with_its_optimizer(settings, tmp_path):
    first = Trainer(from_toml(settings))
    first.options.steps = 1
    first.train()
    again = Trainer(from_toml(settings))
    assert again.step == 1
    for tensor, old in zip(again.part.values(), first.part.values(), strict=True):
        assert torch.equal(tensor, old)
        slots, kept = again.optimizer.state[tensor], first.optimizer.state[old]
        assert slots.keys() == kept.keys()  # a decay has no slots while no lesson had a second chunk
        assert all(torch.equal(slots[name], kept[name]) for name in kept)
    again.train()
    assert again.step == 2


def test_a_run_may_begin_at_another_runs_part(settings, tmp_path):
    Trainer(from_toml(settings)).train()
    part = tmp_path / "out" / "part.safetensors"
    settings.write_text(settings.read_text().replace("out/", "second/") + 'start_from = "out/part.safetensors"\n')
    trainer = Trainer(from_toml(settings))
    assert torch.equal(trainer.part["projection"].detach().half(), load_file(part)["projection"])
    assert trainer.step == 0


def test_a_profile_names_every_bucket_and_its_kernels_and_learns_nothing(settings, tmp_path, capsys, monkeypatch):
    few = BUCKETS[:2]  # the longest of them take a CPU minutes
    monkeypatch.setattr("hope_serve.training.parts.train.BUCKETS", few)
    settings.write_text(settings.read_text() + "profile_steps = 1\n")
    run(from_toml(settings))
    said = capsys.readouterr().out
    for bucket in few:
        assert re.search(rf"^{bucket.name}: [\d.]+ ms a batch, .* of 1, .*% of peak$", said, re.MULTILINE)
    assert said.count("aten::mm") >= len(few)
    assert not (tmp_path / "out" / "part.safetensors").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("worker = 2", "unrecognized arguments: --worker 2"),
        ('seconds = "long"', "seconds: invalid float value: 'long'"),
    ],
)
def test_options_that_are_none_are_named(settings, line, words):
    settings.write_text(settings.read_text() + line + "\n")
    with pytest.raises(ValueError, match=words):
        from_toml(settings)
    with pytest.raises(ValueError, match="required: --base, --text, --out"):
        parse([])


def test_a_missing_base_and_missing_text_are_named(settings, tmp_path):
    settings.write_text(settings.read_text().replace('"text"', '"nowhere"'))
    with pytest.raises(ValueError, match=r"nowhere holds no \*_train.txt"):
        run(from_toml(settings))
    settings.write_text(settings.read_text().replace('"base"', '"none"'))
    with pytest.raises(ValueError, match=r"neither a folder nor a \.gguf file"):
        run(from_toml(settings))


def test_buckets_come_as_often_as_asked_and_spread(settings):
    order = bucket_order(BUCKETS, TIMES)
    assert {bucket.name: order.count(bucket.name) for bucket in BUCKETS} == {
        bucket.name: times for bucket, times in zip(BUCKETS, TIMES, strict=True)
    }
    assert all(
        batch_tokens(small) < batch_tokens(whole) for small, whole in zip(shrunk(BUCKETS, 4), BUCKETS, strict=True)
    )
