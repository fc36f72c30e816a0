"""Episodes as tensors: fixed shapes, and every question is answered by what was told."""

from __future__ import annotations

import pytest
import torch

from hope_serve.training.episodes import QUESTION_TOKENS, UNKNOWN_ANSWER, EpisodeBuilder
from hope_serve.training.personas import PersonaFactory, Split
from hope_serve.training.plans import PLANS, Plan, Stage
from hope_serve.training.stream import unpack

BATCH = 4
BY_NAME = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)


@pytest.fixture
def build(tokenizer):
    """``build(plan)``; unrelated text is one token, again and again."""

    def built(plan, seed=0, split=Split.TRAIN, batch=BATCH):
        return EpisodeBuilder(tokenizer, PersonaFactory(split, seed=seed), lambda n: [20] * n).build(plan, batch)

    return built


@BY_NAME
def test_shapes_follow_from_the_plan_alone(build, plan):
    episodes = build(plan)
    asked = plan.num_facts + 1
    assert [stage.shape for stage in episodes.stages] == [(BATCH, stage.tokens + 1) for stage in plan.stages]
    assert [mask.shape for mask in episodes.masks] == [(BATCH, stage.tokens) for stage in plan.stages]
    assert episodes.questions.shape == (BATCH, asked, QUESTION_TOKENS)
    assert episodes.answer_weight.shape == episodes.value_mask.shape == (BATCH, asked, QUESTION_TOKENS - 1)
    assert episodes.age.shape == episodes.corrected.shape == (BATCH, asked)


@BY_NAME
def test_every_question_is_answered_by_the_stage_that_told_it(build, plan, tokenizer):
    episodes = build(plan, split=Split.HELD_OUT)
    for row in range(BATCH):
        told = [tokenizer.decode(stage[row].tolist()) for stage in episodes.stages]
        for asked in range(plan.num_facts):
            targets = episodes.questions[row, asked, 1:]
            value = tokenizer.decode(targets[episodes.value_mask[row, asked].bool()].tolist()).strip()
            assert value
            assert value in told[episodes.age[row, asked]]


@BY_NAME
def test_the_last_question_is_about_something_never_told(build, plan, tokenizer):
    episodes = build(plan)
    assert (episodes.age[:, -1] == -1).all()
    assert (episodes.age[:, :-1] >= 0).all()
    assert not episodes.value_mask[:, -1].any()
    for row in episodes.questions[:, -1].tolist():
        assert UNKNOWN_ANSWER in tokenizer.decode(row)


@BY_NAME
def test_masks_end_where_the_text_ends_and_only_answers_have_weight(build, plan, tokenizer):
    episodes = build(plan)
    for stage, mask in zip(episodes.stages, episodes.masks, strict=True):
        assert ((stage[:, 1:] != tokenizer.pad) == mask.bool()).all()
    weighted = episodes.answer_weight > 0
    assert (episodes.value_mask.bool() <= weighted).all()
    opened = (episodes.questions[..., :-1] == tokenizer.assistant).cumsum(-1) > 0
    assert (weighted == (opened & (episodes.questions[..., 1:] != tokenizer.pad))).all()


def test_a_correction_wins_over_what_was_said_before(build, tokenizer):
    plan = next(plan for plan in PLANS if plan.name == "two")
    episodes = build(plan, batch=32)
    rows = episodes.corrected.any(1).nonzero().flatten().tolist()
    assert 4 < len(rows) < 28
    for row in rows:
        assert (episodes.age[row][episodes.corrected[row]] == 1).all()


def test_the_same_seed_gives_the_same_episodes(build):
    for plan in PLANS[:3]:
        same = zip(build(plan, seed=7).tensors(), build(plan, seed=7).tensors(), strict=True)
        assert all(torch.equal(one, other) for one, other in same)
        assert not torch.equal(build(plan, seed=7).stages[0], build(plan, seed=8).stages[0])


def test_tensors_and_back(build):
    episodes = build(PLANS[3])
    again = unpack(PLANS[3], episodes.tensors())
    assert all(one is other for one, other in zip(episodes.tensors(), again.tensors(), strict=True))


def test_facts_that_never_fit_their_plan_are_refused_by_its_name(build):
    plan = Plan(name="narrow", stages=(Stage(facts=8, segments=((16, False),)),), share=1.0)
    with pytest.raises(ValueError, match=r"plan 'narrow'.*train a tokenizer with more tokens"):
        build(plan)


def test_a_conversation_is_as_long_as_asked(tokenizer):
    builder = EpisodeBuilder(tokenizer, PersonaFactory(Split.TRAIN, seed=0), lambda n: [20] * n)
    for tokens in (1, 50, 400):
        assert len(builder.conversation(tokens)) == tokens


def test_the_plans_shares_are_a_whole():
    assert sum(plan.share for plan in PLANS) == pytest.approx(1.0)
    assert len({plan.name for plan in PLANS}) == len(PLANS)
