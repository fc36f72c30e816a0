"""A run on the CPU, from its TOML file to its checkpoint."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from support.training_run import write_run

from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.training.config import TrainConfig
from hope_serve.training.plans import PLANS
from hope_serve.training.run_log import RunLog
from hope_serve.training.stream import BatchStream
from hope_serve.training.text import tokenize_files
from hope_serve.training.train import Trainer, learning_factor, run


class Stopped(Trainer):
    """A run that somebody interrupts after ``at`` steps."""

    at = 0

    def _apply(self, schedule):
        super()._apply(schedule)
        if self.step == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def trained(tokenizer_path, tmp_path_factory):
    """A whole run: its folder, and the checkpoint's."""
    folder = tmp_path_factory.mktemp("trained")
    return folder / "run", run(write_run(folder, tokenizer_path, steps=30))


def test_the_loss_falls(trained):
    records = _records(trained[0])
    for part in ("text", "taught", "answer"):
        values = [record[part] for record in records if part in record]
        assert len(values) > 4
        assert sum(values[-3:]) < 0.9 * sum(values[:3]), f"{part}: {values}"


def test_a_run_ends_with_a_checkpoint_a_card_scores_and_a_plot(trained):
    output, folder = trained
    assert folder == output / "hope-small"
    config = load_checkpoint(folder).config
    assert (config.name, config.hidden_size) == ("hope-small", 32)
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
    scores = _records(output)[-1]
    assert scores["step"] == 30
    assert {f"recall_{plan.name}_{group}" for plan in PLANS for group in ("with", "without")} <= scores.keys()
    assert all(0 <= share <= 1 for name, share in scores.items() if name.startswith("recall"))
    card = (folder / "README.md").read_text()
    for word in ("# hope-small", "30 steps", "train.txt", "recall_one_with", "valid_bits_per_byte", "own wording"):
        assert word in card


def test_a_finished_run_is_not_trained_again(trained):
    output, _ = trained
    before = load_file(output / "state.safetensors")
    trainer = Trainer(TrainConfig.load(output.parent / "run.toml"))
    trainer.train()
    assert trainer.step == 30
    _assert_same(before, load_file(output / "state.safetensors"))


@pytest.mark.parametrize("optimizer", ["adamw", "m3"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tokenizer_path, tmp_path, optimizer):
    states = []
    for name, stop in (("whole", 0), ("stopped", 6)):
        config = TrainConfig.load(
            write_run(tmp_path / name, tokenizer_path, steps=7, evaluate_every=4, optimizer=optimizer)
        )
        if stop:
            interrupted = Stopped(config)
            interrupted.at = stop
            with pytest.raises(KeyboardInterrupt):
                interrupted.train()
        trainer = Trainer(config)
        assert trainer.step == (4 if stop else 0)
        trainer.train()
        states.append(load_file(config.output / "state.safetensors"))
    _assert_same(*states)


def test_batches_depend_on_seed_and_number_alone(tokenizer_path, tokenizer, tmp_path):
    config = TrainConfig.load(write_run(tmp_path, tokenizer_path, steps=8))
    ids = tokenize_files(tokenizer, config.data.train)
    whole = _batches(BatchStream(config, ids, first=0, progress=0.0), 8)
    later = _batches(BatchStream(config, ids, first=5, progress=5 / 8), 3)
    assert [batch.plan for batch in whole[5:]] == [batch.plan for batch in later]
    for one, other in zip(whole[5:], later, strict=True):
        assert torch.equal(one.text, other.text)
        assert torch.equal(one.episodes.questions, other.episodes.questions)
    assert not torch.equal(whole[0].text, whole[1].text)
    assert [batch.plan is None for batch in whole] == [True] * 3 + [False] * 5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seconds = 86400", "seconds = nan", ("seconds is nan", "schedule")),
        ("steps = 8", "steps = 0", ("steps is 0", "[1, 1e+09]", "schedule")),
        ('optimizer = "adamw"', 'optimizer = "adam"', ("'adam'", "schedule.optimizer")),
        ("learning_rate = 1e-2", "learning_rate = -1.0", ("learning_rate is -1.0", "[0, 10]")),
        ("learning_rate = 1e-2", "learning_rate = inf", ("learning_rate is inf",)),
        ("text_share = 0.3", "text_share = 1.5", ("text_share is 1.5", "[0, 1]")),
        ("warmup_steps = 2", "warmup = 2", ("unknown field `warmup`", "schedule")),
        ("text_rows = 2", "text_rows = 0", ("text_rows is 0", "batch")),
        ("text_rows = 2", "text_rows = 'two'", ("int", "batch.text_rows")),
        ("workers = 0", "workers = -1", ("workers is -1", "[0, 256]", "data")),
        ('train = ["train.txt"]', 'train = ["none.txt"]', ("data.train", "none.txt is not there")),
        ('"tokenizer.json"', '"none.json"', ("data.tokenizer", "none.json is not there")),
        ("hidden_size = 32", "hidden_size = 0", ("hidden_size is 0", "model")),
        ("num_heads = 2", "num_heads = 3", ("hidden_size 32 is not a multiple of num_heads 3",)),
        ("rank = 4", "rank = 0", ("levels.rank is 0", "model.levels[0]")),
        ("[model.titans]", "[model.titans", ("line",)),
    ],
)
def test_a_configuration_that_is_not_allowed_is_refused_by_field(tokenizer_path, tmp_path, old, new, words):
    path = write_run(tmp_path, tokenizer_path, steps=8)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError) as refused:
        TrainConfig.load(path)
    for word in words:
        assert word in str(refused.value)


def test_rows_are_short_while_there_is_text_alone_and_some_are_to_be_read(tokenizer_path, tokenizer, tmp_path):
    path = write_run(tmp_path, tokenizer_path, steps=8)
    path.write_text(path.read_text() + "text_only_tokens = 24\nreading = 1.0\nfree = 1.0\n")
    config = TrainConfig.load(path)
    batches = _batches(BatchStream(config, tokenize_files(tokenizer, config.data.train), first=0, progress=0.0), 5)
    assert [batch.text.shape[1] - 1 for batch in batches] == [24, 24, 24, 48, 48]
    for batch in batches:
        assert batch.weights.shape == (len(batch.text), batch.text.shape[1] - 1)
    assert {0.0, 2.0} & set(torch.cat([batch.weights.flatten() for batch in batches]).tolist())
    assert all(batch.plan.free for batch in batches[3:])


def test_a_run_may_begin_from_a_checkpoint_that_writes_more_strongly(trained, tokenizer_path, tmp_path):
    path = write_run(tmp_path, tokenizer_path, steps=8)
    text = path.read_text()
    path.write_text(f'start_from = "{trained[1]}"\nstart_eta = 0.08\n{text}')
    model, began = Trainer(TrainConfig.load(path)).model, load_checkpoint(trained[1]).model
    assert model.config.titans.eta_max == 0.1
    for block, old in zip(model.blocks, began.blocks, strict=True):
        torch.testing.assert_close(0.1 * torch.sigmoid(block.titans.gate_bias[:, 0]), torch.full((2,), 0.08))
        torch.testing.assert_close(block.titans.gate_bias[:, 1], old.titans.gate_bias[:, 1])
    path.write_text(f"start_eta = 0.1\n{text}")
    with pytest.raises(ValueError, match=r"start_eta is 0\.1; it must be below model\.titans\.eta_max, 0\.1"):
        TrainConfig.load(path)


def test_a_run_of_another_optimizer_is_not_gone_on_with(trained, tokenizer_path, tmp_path):
    path = write_run(tmp_path, tokenizer_path, steps=8, optimizer="m3")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.safetensors").write_bytes((trained[0] / "state.safetensors").read_bytes())
    with pytest.raises(
        ValueError, match=r"schedule\.optimizer: what was saved lacks 'fast' of blocks\.0.*another optim"
    ):
        Trainer(TrainConfig.load(path))


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(tokenizer_path, tmp_path):
    path = write_run(tmp_path, tokenizer_path, steps=8)
    path.write_text(path.read_text().replace("vocab_size = 1024", "vocab_size = 99"))
    with pytest.raises(ValueError, match=r"model\.vocab_size is 99, but .*tokenizer\.json has 1024 tokens"):
        Trainer(TrainConfig.load(path))


def test_a_run_of_another_model_is_not_gone_on_with(trained, tokenizer_path, tmp_path):
    path = write_run(tmp_path, tokenizer_path, steps=8)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.safetensors").write_bytes((trained[0] / "state.safetensors").read_bytes())
    path.write_text(path.read_text().replace("hidden_size = 48", "hidden_size = 64"))
    with pytest.raises(ValueError, match=r"state\.safetensors is of a run with another model"):
        Trainer(TrainConfig.load(path))


def test_the_rate_warms_up_and_falls_to_its_final_share(tokenizer_path, tmp_path):
    schedule = TrainConfig.load(write_run(tmp_path, tokenizer_path, steps=8)).schedule
    assert learning_factor(schedule, 0, 0.0) == pytest.approx(0.5)
    assert learning_factor(schedule, 1, 0.0) == pytest.approx(1.0)
    assert learning_factor(schedule, 99, 1.0) == pytest.approx(schedule.final_share)
    assert learning_factor(schedule, 99, 2.0) == pytest.approx(schedule.final_share)


def _batches(stream, count):
    return [batch for batch, _ in zip(stream, range(count), strict=False)]


def _records(output):
    return RunLog(output).records()


def _assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
