"""Optimizers chosen a level in the config: what is kept for them, when they act, and what older configs mean."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
import torch
import torch.nn.functional as F
from msgspec.structs import replace
from support.tiny_model import tiny_config, tiny_model
from support.tiny_optimizers import EVERY_RULE, RULES, levels_with

from hope_serve import optim
from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.engine.plan import memory_bytes
from hope_serve.model.cadence import Cadence
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState, cms_shapes, delta_shapes
from hope_serve.model.config import HopeConfig, LevelConfig
from hope_serve.model.learn import accumulate, fire, level_rules, read_deltas, segment_gradient
from hope_serve.optim import DeepMomentum, GradientDescent, Momentum, MultiScaleMomentum

ONLINE = {"hidden_size": 48, "chunk_size": 16, "rank": 4}


def level_of(**fields):
    return msgspec.json.decode(json.dumps(ONLINE | fields), type=LevelConfig)


def test_words_of_older_configs_mean_what_they_meant_and_are_written_as_they_were():
    assert level_of().rule() == GradientDescent()
    assert level_of(optimizer="gd", momentum=0.5).rule() == GradientDescent()
    assert level_of(optimizer="momentum").rule() == Momentum(beta=0.9)
    assert level_of(optimizer="momentum", momentum=0.5).rule() == Momentum(beta=0.5)
    again = json.loads(msgspec.json.encode(level_of(optimizer="momentum", momentum=0.5)))
    assert (again["optimizer"], again["momentum"]) == ("momentum", 0.5)


def test_the_bundled_config_is_written_as_it_is_read():
    stored = (BUNDLED_CHECKPOINT / "config.json").read_bytes()
    config = msgspec.json.decode(stored, type=HopeConfig)
    assert msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n" == stored


def test_tagged_rule_is_a_levels_own():
    config = tiny_config(levels=(level_of(optimizer={"rule": "m3", "frequency": 4}), level_of(chunk_size=32)))
    assert [level.rule() for level in config.levels] == [MultiScaleMomentum(frequency=4), GradientDescent()]
    assert msgspec.json.decode(msgspec.json.encode(config), type=HopeConfig) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "m3"}, "'m3' is unknown; write gd, momentum, or an object"),
        ({"optimizer": {"rule": "m3", "frequency": 0}}, r"m3.frequency is 0; it must lie in \[1, 256\] - at `\$.optim"),
        ({"optimizer": {"rule": "m3", "speed": 1}}, "unknown field `speed`"),
        ({"optimizer": {"rule": "sgd"}}, "Invalid value 'sgd'"),
        ({"optimizer": {"beta": 0.9}}, "missing required field `rule`"),
        ({"optimizer": 3}, "optimizer"),
        ({"momentum": 1.0}, r"levels.momentum is 1.0; it must lie in \[0, 1\)"),
        ({"optimizer": {"rule": "momentum"}, "momentum": 0.5}, "levels.momentum is 0.5 beside a levels.optimizer with"),
    ],
)
def test_optimizer_that_is_not_allowed_is_refused_by_field(fields, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        level_of(**fields)


@pytest.mark.parametrize("form", ["subspace", "full"])
@EVERY_RULE
def test_every_level_keeps_what_its_rule_asks_for_on_both_sides(rule, form):
    config = tiny_config(levels=levels_with(rule, form=form))
    shapes = cms_shapes(config)
    sides = {"inner": (48, 4 if form == "subspace" else 32), "outer": (32, 4 if form == "subspace" else 48)}
    for side, delta in sides.items():
        assert shapes[f"1.delta.{side}"] == shapes[f"1.gradient.{side}"] == (2, *delta)
        kept = [shape for name, shape in shapes.items() if name.startswith("1.slot") and name.endswith(side)]
        assert kept == [(2, *shape) for shape in rule.slot_shapes(delta)]
    cms = CmsState.fresh(tiny_model(levels=config.levels), 3)
    assert {name: tuple(t.shape[1:]) for name, t in cms.tensors().items()} == shapes
    assert list(CmsState.of(config, cms.tensors()).tensors()) == list(shapes)
    assert all(".delta." in name for name in delta_shapes(config))


def test_a_memorys_bytes_are_those_of_its_deltas_gradients_and_what_its_rule_keeps():
    """By the formulas in ``hope_serve/optim/README.md``, on two levels and layers of 48 x 4 and 32 x 4 in fp16."""
    deltas = 2 * 2 * 4 * (48 + 32)

    def kept_by(rule):
        return memory_bytes(tiny_config(levels=levels_with(rule))) / 2 - 2 * deltas

    assert kept_by(GradientDescent()) == 0
    assert kept_by(Momentum()) == deltas
    assert kept_by(DeepMomentum(hidden_size=3)) == 2 * 2 * 2 * (2 * 4 * 3)
    assert kept_by(MultiScaleMomentum()) == 4 * deltas + 2 * 2 * 2


def test_the_readmes_table_names_every_rule_and_the_bytes_it_takes():
    config = msgspec.json.decode((BUNDLED_CHECKPOINT / "config.json").read_bytes(), type=HopeConfig)
    table = (Path(optim.__file__).parent / "README.md").read_text()
    stated = {
        row[1]: int(row[2].replace(",", ""))
        for row in re.finditer(r"^\| `(\w+)` .*\| ([\d,]+) \| (?:yes|no) \|", table, re.M)
    }
    assert stated.keys() == {type(rule).__struct_config__.tag for rule in RULES}
    for name, num_bytes in stated.items():
        rule = msgspec.convert({"rule": name}, type=optim.TaggedOptimizer)
        levels = (replace(level, optimizer=rule) if level.online else level for level in config.levels)
        assert memory_bytes(replace(config, levels=tuple(levels))) == num_bytes


@EVERY_RULE
def test_rule_acts_where_a_chunk_ends_and_nowhere_else(rule):
    """Over four chunks of the fast level: what a rule keeps moves with its level's chunks, the rest stands still."""
    model = tiny_model(levels=levels_with(rule), dtype=torch.float64)
    cms, cadence = CmsState.fresh(model, 2), Cadence(chunk_sizes=(16, 32))
    torch.manual_seed(1)
    for _ in range(8):
        before, cadence = cms, cadence.after(8)
        cms = cms.map(lambda t: t)
        noise = tuple(Delta(*(torch.randn_like(g) for g in level.gradient)) for level in cms.levels)
        cms = fire(level_rules(model), accumulate(cms, noise), cadence.fired())
        for was, now, fired in zip(before.levels, cms.levels, cadence.fired(), strict=True):
            for side in range(2):
                assert torch.equal(was.delta[side], now.delta[side]) != fired
                assert all(torch.equal(a[side], b[side]) for a, b in zip(was.slots, now.slots, strict=True)) or fired
                assert bool(now.gradient[side].any()) != fired
    assert cadence.updates() == (4, 2)


@EVERY_RULE
def test_open_chunk_reads_as_if_it_ended_here_and_changes_nothing_kept(rule):
    model = tiny_model(levels=levels_with(rule), dtype=torch.float64)
    torch.manual_seed(1)
    cms = CmsState.fresh(model, 2).map(lambda t: torch.randn_like(t).abs() * 0.1)
    kept = {name: tensor.clone() for name, tensor in cms.tensors().items()}
    read = read_deltas(level_rules(model), cms, Cadence(chunk_sizes=(16, 32), tokens=20))
    for found, level in zip(read, fire(level_rules(model), cms, (True, True)).levels, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, level.delta, strict=True))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in cms.tensors().items())


@EVERY_RULE
def test_outer_gradient_reaches_every_parameter_through_two_updates(rule):
    model = tiny_model(levels=levels_with(rule), dtype=torch.float64).requires_grad_()
    torch.manual_seed(3)
    text, cms = torch.randint(0, model.config.vocab_size, (2, 17)), CmsState.fresh(model, 2)
    for _ in range(2):
        deltas = tuple(level.delta for level in cms.levels)
        segment = segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(2), deltas, create_graph=True)
        cms = fire(level_rules(model), accumulate(cms, segment.gradients), (True, True))
    hidden, _ = model(text, model.fresh_state(2), deltas=tuple(level.delta for level in cms.levels))
    F.cross_entropy(model.logits(hidden[:, :-1]).flatten(0, 1), text[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@EVERY_RULE
def test_what_was_learned_lowers_the_loss_in_a_fresh_context(rule):
    model = tiny_model(levels=levels_with(rule), dtype=torch.float64)
    torch.manual_seed(3)
    text, cms = torch.randint(0, model.config.vocab_size, (1, 33)), CmsState.fresh(model, 1)

    def read(cms):
        deltas = tuple(level.delta for level in cms.levels)
        return segment_gradient(model, text[:, :-1], text[:, 1:], model.fresh_state(1), deltas)

    base = read(cms).nll.mean()
    for _ in range(8):
        cms = fire(level_rules(model), accumulate(cms, read(cms).gradients), (True, True)).map(torch.Tensor.detach)
    assert read(cms).nll.mean() < base - 0.1
