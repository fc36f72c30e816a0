"""The gradient of one step: as it is, in fewer bits, and as a captured graph."""

from __future__ import annotations

import random

import pytest
import torch

from hope_serve.training.config import LossConfig
from hope_serve.training.optimizers.arms import ARMS, model_of
from hope_serve.training.optimizers.language import TRAINED, VOCAB_SIZE, draw_episodes
from hope_serve.training.optimizers.learner import Learner
from hope_serve.training.step import GradientStep
from hope_serve.training.stream import Batch

LOSS = LossConfig()


def _model(device="cpu"):
    return Learner(model_of(ARMS["gd"]), seed=0, device=device).model


def _batch(seed, plan=TRAINED[1]):
    drawn = torch.Generator().manual_seed(seed)
    text = torch.randint(9, VOCAB_SIZE, (2, 97), generator=drawn)
    weights = torch.rand(2, 96, generator=drawn)
    return Batch(text=text, weights=weights, plan=plan, episodes=draw_episodes(plan, 2, random.Random(seed)))


def _gradient(model, batch, **options):
    parts = GradientStep(model, LOSS, **options)(batch, unknown=1.0)
    return parts.cpu(), torch.cat([p.grad.flatten().cpu() for p in model.parameters()])


def test_text_and_episodes_add_up_to_the_gradient_of_a_step():
    model, batch = _model(), _batch(1)
    _, both = _gradient(model, batch, capture=False)
    _, text = _gradient(model, Batch(text=batch.text, weights=batch.weights, plan=None, episodes=None), capture=False)
    silent = LossConfig(text=0.0)
    GradientStep(model, silent, capture=False)(batch, unknown=1.0)
    told = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(both, told + LOSS.text * text, rtol=1e-4, atol=1e-6)


def test_reading_in_16_bits_points_where_32_do():
    whole, half = _model(), _model()
    parts, exact = _gradient(whole, _batch(1), capture=False)
    near_parts, near = _gradient(half, _batch(1), capture=False, read_dtype=torch.bfloat16)
    assert not torch.equal(exact, near)
    torch.testing.assert_close(parts, near_parts, rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(exact, near, 0) > 0.99


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_step_is_the_step_that_was_captured(dtype):
    eager, captured = _model("cuda"), _model("cuda")
    plain = GradientStep(eager, LOSS, capture=False, read_dtype=dtype)
    graph = GradientStep(captured, LOSS, capture=True, read_dtype=dtype)
    for seed in (1, 2, 3):
        one, other = plain(_batch(seed), unknown=0.5), graph(_batch(seed), unknown=0.5)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        for p, q in zip(eager.parameters(), captured.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-2, atol=1e-3)


@pytest.mark.cuda
def test_learners_on_streams_of_their_own_learn_what_they_would_alone():
    plans = [*TRAINED, *TRAINED]
    batches = [draw_episodes(plan, 4, random.Random(seed)).tensors() for seed, plan in enumerate(plans)]
    alone = {arm: Learner(model_of(ARMS[arm]), seed=0, device="cuda") for arm in ("gd", "m3", "dmgd")}
    for learner in alone.values():
        learner.stream = None  # every step at once, uncaptured
        for plan, batch in zip(plans, batches, strict=True):
            learner.step(plan, [t.cuda() for t in batch], 0.1)
    beside = {arm: Learner(model_of(ARMS[arm]), seed=0, device="cuda") for arm in alone}
    static = {plan.name: [t.cuda() for t in batch] for plan, batch in zip(TRAINED, batches, strict=False)}
    for plan, batch in zip(plans, batches, strict=True):
        for tensor, kept in zip(batch, static[plan.name], strict=True):
            kept.copy_(tensor)
        for learner in beside.values():
            learner.step(plan, static[plan.name], 0.1)
        torch.cuda.synchronize()
    for arm, learner in alone.items():
        for (name, p), q in zip(learner.model.named_parameters(), beside[arm].model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-2, atol=1e-3, msg=f"{arm} {name}")
