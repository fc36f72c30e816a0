"""The study of optimizers: its language, its table, and a run that is stopped and goes on."""

from __future__ import annotations

import json
import random

import pytest
import torch
from safetensors.torch import load_file

from hope_serve.optim import DeepMomentum, DeltaMomentum, GradientDescent, Momentum, MultiScaleMomentum
from hope_serve.training.optimizers import __main__ as command
from hope_serve.training.optimizers.arms import ARMS, model_of
from hope_serve.training.optimizers.language import (
    ANSWER,
    CALLED,
    FACT_TOKENS,
    IS,
    MY,
    QUESTION_TOKENS,
    TRAINED,
    UNKNOWN,
    VOCAB_SIZE,
    draw_episodes,
)
from hope_serve.training.optimizers.learner import EXAMS, Learner


def test_the_arms_are_the_five_optimizers_and_more_levels():
    rules = {type(levels[0].rule()) for levels in ARMS.values()}
    assert rules == {GradientDescent, Momentum, DeltaMomentum, DeepMomentum, MultiScaleMomentum}
    periods = {tuple(level.chunk_size for level in levels if level.online) for levels in ARMS.values()}
    assert {(32,), (32, 128), (32, 64, 128)} <= periods


@pytest.mark.parametrize("plan", [*TRAINED, *(plan for plan, _ in EXAMS.values())], ids=lambda plan: plan.name)
def test_every_answer_is_what_was_told_last(plan):
    episodes = draw_episodes(plan, 8, random.Random(0))
    assert episodes.questions.shape == (8, plan.num_facts + 1, QUESTION_TOKENS)
    for row in range(8):
        told = {}
        for stage in (
            s[row].tolist()[1:] for s, about in zip(episodes.stages, plan.stages, strict=True) if about.facts
        ):
            for at in range(0, len(stage), FACT_TOKENS):
                words = stage[at : at + FACT_TOKENS]
                assert words[0] == MY
                assert words[2] in (IS, CALLED)
                told[words[1]] = words[3:5]
        for question, age in zip(episodes.questions[row].tolist(), episodes.age[row].tolist(), strict=True):
            assert question[3] == ANSWER
            if age >= 0:
                assert told[question[2]] == question[4:6]
            else:
                assert question[2] not in told
                assert question[4] == UNKNOWN
        assert max(max(stage[row].tolist()) for stage in episodes.stages) < VOCAB_SIZE


def test_the_same_seed_draws_the_same_episodes():
    one, same, other = (draw_episodes(TRAINED[1], 4, random.Random(seed)).tensors() for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_training_lowers_the_loss_of_what_was_told():
    learner = Learner(model_of(ARMS["momentum"]), seed=0, device="cpu")
    losses = []
    for step in range(12):
        learner.step(TRAINED[0], draw_episodes(TRAINED[0], 8, random.Random(step)).tensors(), 1.0)
        losses.append(learner.losses()["answer"])
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.fixture
def two_arms(monkeypatch):
    chosen = {name: ARMS[name] for name in ("gd", "m3")}
    monkeypatch.setattr(command, "ARMS", chosen)
    return chosen


def test_a_study_that_was_stopped_goes_on_with_the_same_lessons(two_arms, tmp_path):
    """A stop after every step against none: the same weights. Progress is by time, so the rates are made level."""
    weights = []
    for name, stops in (("whole", 1), ("stopped", 3)):
        study = None
        for call in range(stops):
            study = command.Study(tmp_path / name, seeds=1, device="cpu")
            steps = 3 if stops == 1 else call + 1
            while study.step < steps:
                drawn = next(iter(command._Lessons(1, 2, study.step)))
                for learner in study.learners.values():
                    learner.step(command.plan_of(study.step), drawn[0], 1.0)
                study.step += 1
            study.save()
        weights.append(load_file(tmp_path / name / "state.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_command_trains_examines_and_prints_a_table(two_arms, tmp_path, monkeypatch, capsys):
    line = f"optimizers {tmp_path / 'out'} --seconds 0.5 --seeds 2 --batch 2 --episodes 2 --workers 0 --device cpu"
    monkeypatch.setattr("sys.argv", line.split())
    command.main()
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["arms"].keys() == two_arms.keys()
    for arm in two_arms:
        assert f"| {arm} |" in printed
        for scores in results["arms"][arm].values():
            assert set(command.COLUMNS) <= scores.keys()
            assert scores["forgotten_in_noise"] == pytest.approx(scores["recall"] - scores["after_noise"])
    # A delta and a gradient of [256 x 16] and [128 x 16] in two layers, two bytes a value; m3: four more, and a count.
    assert results["arms"]["gd"]["0"]["memory_bytes"] == 2 * 2 * 2 * (256 + 128) * 16
    assert results["arms"]["m3"]["0"]["memory_bytes"] == 2 * 2 * (6 * (256 + 128) * 16 + 2)
