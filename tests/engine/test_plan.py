"""What is said to fit before anything is loaded: slots, lessons and what one segment computes."""

from __future__ import annotations

import re

import pytest
import torch
from support.tiny_model import tiny_model

from hope_serve.api import AdaptOptions
from hope_serve.config import BUNDLED_CHECKPOINT, ConfigError, EngineConfig
from hope_serve.engine.lesson import Lesson
from hope_serve.engine.plan import DevicePlan, check_fit, lessons_at_once
from hope_serve.engine.pools import Pools
from hope_serve.engine.teaching import Teaching
from hope_serve.model.cadence import Cadence
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.serving.model import ServedModel, kind_of
from hope_serve.model.serving.precision import Precision


def served(model):
    return ServedModel(model, device="cpu", precision=Precision.of(model.config, "cpu"))


def plan_of(model):
    return DevicePlan.of(kind_of(model), Precision.of(model.config, "cpu"), EngineConfig())


def test_slots_and_lessons_take_what_their_pools_take():
    model = tiny_model()
    plan, pools, teaching = plan_of(model), Pools(served(model), 3), Teaching(served(model), 2, alone=False)
    assert pools.state.rows.nbytes + pools.delta_rows.rows.nbytes == 4 * plan.slot
    assert sum(slab.rows.nbytes for slab in (teaching._learned, teaching._state, teaching._reads)) == 3 * plan.lesson


@pytest.mark.parametrize("name", ["tiny", "hope-demo"])
def test_a_segment_keeps_about_what_is_said(name):
    """Counted as autograd keeps it: no more than the plan says, and not much less."""
    model = tiny_model() if name == "tiny" else load_checkpoint(BUNDLED_CHECKPOINT).model
    plan, serving = plan_of(model), served(model)
    teaching = Teaching(serving, 1, alone=False)
    sizes = tuple(model.config.levels[i].chunk_size for i in model.config.online_levels)
    tokens = tuple(n % 300 for n in range(plan.segment_tokens + 1))
    blank = torch.zeros(teaching.layout.num_bytes, dtype=torch.uint8)
    lesson = Lesson(tokens=tokens, before=blank, cadence=Cadence(chunk_sizes=sizes), options=AdaptOptions())
    teaching.begin(lesson)
    kept, own = [], {weight.untyped_storage().data_ptr() for weight in serving.weights()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        teaching.step([lesson])
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    measured = sum(count for address, count in storages.items() if address not in own)
    assert measured <= plan.segment <= 2 * measured


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_does_not_fit_is_refused_with_the_keys_that_would_make_it_fit(device):
    plan, config = plan_of(tiny_model()), EngineConfig(max_slots=64, max_lessons=8, state_dtype="float32")
    whole = plan.total(config, device)
    assert plan.shortfall(config, device, whole) == ""
    for free in (whole - 1, whole - 5 * plan.slot, whole - 3 * plan.lesson):
        wrong = plan.shortfall(config, device, free)
        assert "engine.state_dtype to float16" in wrong
        for key in ("max_slots", "max_lessons"):
            most = int(re.search(rf"engine\.{key} to at most (\d+)", wrong)[1])
            fits = EngineConfig(**({"max_slots": 64, "max_lessons": 8} | {key: most}))
            assert plan.shortfall(fits, device, free) == ""
            one_more = EngineConfig(**({"max_slots": 64, "max_lessons": 8} | {key: most + 1}))
            assert plan.shortfall(one_more, device, free)
    assert "smaller model" in plan.shortfall(EngineConfig(max_slots=1, max_lessons=1), device, plan.weights)


def test_lessons_are_computed_together_on_a_card_and_one_by_one_on_a_cpu():
    plan, config = plan_of(tiny_model()), EngineConfig(max_lessons=8)
    assert (lessons_at_once(config, "cpu"), lessons_at_once(config, "cuda:0")) == (1, 8)
    assert plan.total(config, "cuda") - plan.total(config, "cpu") == 7 * plan.segment
    said = plan.said(config, "cuda")
    assert "8 at once" in said and "4,096 segments of 16," in said


def test_a_server_that_would_not_fit_does_not_start(monkeypatch):
    plan = plan_of(tiny_model())
    check_fit(plan, EngineConfig(), "cpu")
    monkeypatch.setattr("os.sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else plan.weights)
    with pytest.raises(ConfigError, match="take a smaller model"):
        check_fit(plan, EngineConfig(max_slots=1, max_lessons=1), "cpu")
