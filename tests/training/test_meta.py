"""The outer loss: its gradient goes through the updates that it judges."""

from __future__ import annotations

import pytest
import torch
from support.tiny_model import tiny_model

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState
from hope_serve.model.learn import accumulate, fire, level_rules, read_deltas, segment_gradient
from hope_serve.training.config import LossConfig
from hope_serve.training.episodes import Episodes
from hope_serve.training.meta import episode_loss, teach, text_loss
from hope_serve.training.plans import Plan, Stage

BATCH, QUESTIONS, QUESTION_TOKENS = 2, 3, 7
PLAN = Plan(
    name="two",
    stages=(Stage(facts=1, segments=((16, True), (5, False))), Stage(facts=1, segments=((9, False),))),
    share=1.0,
)
ANSWERS_ALONE = LossConfig(answer=1.0, taught=0.0, text=0.0, unknown=0.0, blank=0.0)
STEP = 1e-5


@pytest.fixture(scope="module")
def model():
    # A learned token weight is a constant of the inner gradient by design, which differences would not know.
    return tiny_model(dtype=torch.float64, vocab_size=40, token_weight="none").requires_grad_(True)


@pytest.fixture(scope="module")
def episodes():
    draw = torch.Generator().manual_seed(3)
    ids = lambda *shape: torch.randint(6, 40, shape, generator=draw)
    weight = torch.zeros(BATCH, QUESTIONS, QUESTION_TOKENS - 1, dtype=torch.float64)
    weight[..., -3:] = 1
    return Episodes(
        stages=[ids(BATCH, stage.tokens + 1) for stage in PLAN.stages],
        masks=[torch.ones(BATCH, stage.tokens, dtype=torch.float64) for stage in PLAN.stages],
        questions=ids(BATCH, QUESTIONS, QUESTION_TOKENS),
        answer_weight=weight,
        value_mask=weight,
        age=torch.tensor([[0, 1, -1]] * BATCH),
        corrected=torch.zeros(BATCH, QUESTIONS, dtype=torch.bool),
    )


def loss_of(model, episodes):
    return episode_loss(model, PLAN, episodes, ANSWERS_ALONE, torch.zeros((), dtype=torch.float64))[0]


@pytest.mark.parametrize(
    "part", ["log_rate", "decay_logit", "inner", "outer", "embedding", "key", "query", "projection"]
)
def test_the_gradient_of_the_answers_is_that_of_the_whole_computation_updates_included(model, episodes, part):
    """Against differences: a step of every parameter with this word in its name, in a direction drawn once."""
    chosen = {name: p for name, p in model.named_parameters() if part in name}
    assert chosen
    torch.manual_seed(5)
    direction = {name: torch.randn_like(p) for name, p in chosen.items()}
    gradients = torch.autograd.grad(loss_of(model, episodes), list(chosen.values()), allow_unused=True)
    along = sum((g * direction[n]).sum() for n, g in zip(chosen, gradients, strict=True) if g is not None)
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            for name, parameter in chosen.items():
                parameter.add_(direction[name], alpha=sign * STEP)
            ends.append(float(loss_of(model, episodes)))
            for name, parameter in chosen.items():
                parameter.sub_(direction[name], alpha=sign * STEP)
    assert float(along) == pytest.approx((ends[0] - ends[1]) / (2 * STEP), rel=1e-5, abs=1e-8)
    assert abs(float(along)) > 1e-7


@torch.no_grad()
def test_slow_levels_fire_at_their_own_pace_as_they_do_when_served(model):
    """Against a cadence that counts real tokens: levels of 16 and 32, a lesson of 53 tokens, then one of 7."""
    stages = (
        Stage(facts=1, segments=((16, True), (16, True), (16, True), (5, False))),
        Stage(facts=1, segments=((7, False),)),
    )
    plan = Plan(name="long", stages=stages, share=1.0)
    draw = torch.Generator().manual_seed(4)
    texts = [torch.randint(6, 40, (BATCH, stage.tokens + 1), generator=draw) for stage in stages]
    taught = teach(model, plan, _episodes(texts, stages), create_graph=False)

    cms, rules, cadence = CmsState.fresh(model, BATCH), level_rules(model), Cadence(chunk_sizes=(16, 32))
    for text in texts:
        state, at = model.fresh_state(BATCH), 0
        while at < text.shape[1] - 1:
            end = min(at + cadence.room(), text.shape[1] - 1)
            deltas = tuple(level.delta for level in cms.levels)
            segment = segment_gradient(model, text[:, at:end], text[:, at + 1 : end + 1], state, deltas, consumed=at)
            cadence = cadence.after(end - at)
            cms, state, at = fire(rules, accumulate(cms, segment.gradients), cadence.fired()), segment.state, end
    for one, other in zip(taught.deltas, read_deltas(rules, cms, cadence), strict=True):
        torch.testing.assert_close(one.inner, other.inner)
        torch.testing.assert_close(one.outer, other.outer)
        assert one.outer.abs().max() > 0


def _episodes(texts, stages):
    """Episodes of these texts, without questions."""
    none = torch.zeros(BATCH, 1)
    return Episodes(
        stages=texts,
        masks=[torch.ones(BATCH, stage.tokens, dtype=torch.float64) for stage in stages],
        questions=torch.zeros(BATCH, 1, 2, dtype=torch.long),
        answer_weight=none[..., None],
        value_mask=none[..., None],
        age=none,
        corrected=none.bool(),
    )


def test_what_was_taught_is_what_the_answers_depend_on(model, episodes):
    """Other facts, another loss: the memory is not ignored."""
    other = Episodes(**{**vars(episodes), "stages": [stage.flip(1) for stage in episodes.stages]})
    assert abs(float(loss_of(model, other).detach()) - float(loss_of(model, episodes).detach())) > 1e-6


def test_a_target_of_no_weight_costs_nothing_and_the_others_by_their_weights(model):
    rows = torch.randint(6, 40, (1, 9), generator=torch.Generator().manual_seed(2))
    each = [text_loss(model, rows, torch.eye(8, dtype=torch.float64)[i : i + 1]) for i in range(8)]
    weights = torch.tensor([[0.0, 2, 0, 1, 0, 0, 0, 1]], dtype=torch.float64)
    expected = (2 * each[1] + each[3] + each[7]) / 4
    torch.testing.assert_close(text_loss(model, rows, weights), expected)
