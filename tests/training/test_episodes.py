"""Episodes as tensors: fixed shapes, and every question is answered by what was told."""

from __future__ import annotations

import random
from importlib.resources import files

import pytest
import torch

from hope_serve.training.episodes import QUESTION_TOKENS, UNKNOWN_ANSWER, EpisodeBuilder
from hope_serve.training.lessons.people import Habits, People
from hope_serve.training.lessons.prose import Prose
from hope_serve.training.personas import PersonaFactory, Split
from hope_serve.training.plans import FREE_PLANS, PLANS, Plan, Stage
from hope_serve.training.stream import unpack

BATCH = 4
BY_NAME = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)


@pytest.fixture
def build(tokenizer):
    """``build(plan)``; unrelated text is one token, again and again."""

    def built(plan, seed=0, split=Split.TRAIN, batch=BATCH):
        return EpisodeBuilder(tokenizer, PersonaFactory(split, seed=seed), lambda n: [20] * n).build(plan, batch)

    return built


@pytest.fixture
def prose_builder(tokenizer):
    draw = random.Random(2)
    passages = files("hope_serve.training").joinpath("unrelated.txt").read_text()
    people = PersonaFactory(Split.TRAIN, seed=2)
    free = People(Split.TRAIN, Prose({"books": passages}, draw), draw, habits=Habits(correct=0.0, end=0.0))
    return EpisodeBuilder(tokenizer, people, lambda n: [20] * n, free)


def _values(episodes, row, tokenizer, count):
    """The words of a row's told values."""
    masks, questions = episodes.value_mask[row, :count].bool(), episodes.questions[row, :count, 1:]
    return [tokenizer.decode(ids[mask].tolist()).strip() for ids, mask in zip(questions, masks, strict=True)]


@BY_NAME
def test_shapes_follow_from_the_plan_alone(build, plan):
    episodes = build(plan)
    asked = 2 * plan.num_facts
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
def test_as_many_questions_are_about_what_was_never_told_as_about_what_was(build, plan, tokenizer):
    episodes = build(plan)
    told, untold = episodes.age.split(plan.num_facts, 1)
    assert (told >= 0).all()
    assert (untold == -1).all()
    assert not episodes.value_mask[:, plan.num_facts :].any()
    for row in episodes.questions[:, plan.num_facts :].flatten(0, 1).tolist():
        assert UNKNOWN_ANSWER in tokenizer.decode(row)


def test_a_lesson_of_one_fact_is_among_those_that_vary(build, tokenizer):
    for name in ("few", "single"):
        plan = next(plan for plan in PLANS if plan.name == name)
        episodes = build(plan, batch=48)
        values = [_values(episodes, row, tokenizer, plan.num_facts) for row in range(48)]
        counts = {len(set(one)) for one in values}
        assert {1, plan.num_facts} <= counts, f"{name}: {counts}"


def test_the_first_word_of_an_answer_counts_most(build, tokenizer):
    episodes = build(PLANS[0])
    opened = episodes.questions[..., :-1] == tokenizer.assistant
    assert (episodes.answer_weight[opened] == episodes.answer_weight.max()).all()
    assert (episodes.answer_weight == episodes.answer_weight.max()).sum() == opened.sum()


@pytest.mark.parametrize("plan", FREE_PLANS, ids=lambda plan: plan.name)
def test_people_tell_and_are_asked_in_their_own_words(prose_builder, plan, tokenizer):
    episodes = prose_builder.build(plan, BATCH)
    assert episodes.questions.shape == (BATCH, 2 * plan.num_facts, QUESTION_TOKENS)
    for row in range(BATCH):
        for asked in range(plan.num_facts, 2 * plan.num_facts):
            assert UNKNOWN_ANSWER in tokenizer.decode(episodes.questions[row, asked].tolist())
        told = tokenizer.decode(episodes.stages[0][row].tolist()).lower()
        found = [value and value.lower() in told for value in _values(episodes, row, tokenizer, plan.num_facts)]
        assert all(found)
    assert ((episodes.stages[0][:, 1:] != tokenizer.pad) == episodes.masks[0].bool()).all()


def test_free_plans_need_people_who_tell_freely(build):
    with pytest.raises(ValueError, match="'free_one' needs people who tell in their own words"):
        build(FREE_PLANS[0])


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
