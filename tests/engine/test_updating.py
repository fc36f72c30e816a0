"""What a step of lessons does to a level's pools: the same by the kernel's rule and by the optimizer's own."""

from __future__ import annotations

import pytest
import torch
from support.tiny_optimizers import EVERY_RULE, RULES

from hope_serve.engine.updating import update_level
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import LevelState
from hope_serve.model.learn import LevelRule

LAYERS, SLOTS = 2, 6
SHAPES = ((5, 3), (4, 3))
DUE = torch.tensor([True, False, True, True])
AT = torch.tensor([4, 2, 0, 1], dtype=torch.int32)
SCALE = torch.tensor([1.0, 0.5, 1.0, 2.0])


class ByItself:
    """A rule whose kernel is not used."""

    kernel = None

    def __init__(self, rule):
        self.update = rule.update


def level_rule(optimizer):
    numbers = torch.linspace(0.1, 0.2, LAYERS)[:, None, None], torch.linspace(0.9, 0.99, LAYERS)[:, None, None]
    return LevelRule(optimizer=optimizer, rates=(numbers[0], numbers[0] * 2), decays=(numbers[1], numbers[1]))


def random_level(rule):
    torch.manual_seed(1)

    def pair(shapes):
        return Delta(*(torch.rand(SLOTS, LAYERS, *shape) for shape in shapes))

    kept = zip(*(rule.slot_shapes(shape) for shape in SHAPES), strict=True)
    return LevelState(delta=pair(SHAPES), gradient=pair(SHAPES), slots=tuple(pair(shapes) for shapes in kept))


def random_gradient():
    torch.manual_seed(2)
    return Delta(*(torch.randn(len(AT), LAYERS, *shape) for shape in SHAPES))


@EVERY_RULE
def test_pools_move_by_the_rule_slot_by_slot(rule):
    was, level, gradient = random_level(rule), random_level(rule), random_gradient()
    how = level_rule(rule)
    update_level(how, level, gradient, AT, DUE, SCALE)
    for row, slot in enumerate(AT.tolist()):
        if not slot:
            continue
        for side in range(2):
            summed = was.gradient[side][slot] + SCALE[row] * gradient[side][row]
            kept = tuple(pool[side][slot] for pool in was.slots)
            moved, after = rule.update(
                was.delta[side][slot], summed, kept, rate=how.rates[side], decay=how.decays[side]
            )
            expected = (moved, torch.zeros_like(summed), *after) if DUE[row] else (was.delta[side][slot], summed, *kept)
            found = (level.delta[side][slot], level.gradient[side][slot], *(pool[side][slot] for pool in level.slots))
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@EVERY_RULE
def test_nobodys_slot_and_those_of_others_stay_as_they_are(rule):
    was, level = random_level(rule), random_level(rule)
    update_level(level_rule(rule), level, random_gradient(), AT, DUE, SCALE)
    for name, tensor in level.tensors().items():
        assert torch.equal(tensor[[0, 3, 5]], was.tensors()[name][[0, 3, 5]])


@pytest.mark.parametrize("rule", RULES[:2], ids=repr)
def test_kernel_and_rule_agree(rule):
    fast, plain = random_level(rule), random_level(rule)
    update_level(level_rule(rule), fast, random_gradient(), AT, DUE, SCALE)
    update_level(level_rule(ByItself(rule)), plain, random_gradient(), AT, DUE, SCALE)
    for name, tensor in fast.tensors().items():
        torch.testing.assert_close(tensor, plain.tensors()[name], rtol=1e-6, atol=1e-6)


@pytest.mark.cuda
@EVERY_RULE
def test_pools_on_a_device_move_as_on_the_cpu(rule):
    def moved(device):
        how, level = level_rule(rule), random_level(rule)
        how = LevelRule(
            optimizer=rule,
            rates=tuple(r.to(device) for r in how.rates),
            decays=tuple(d.to(device) for d in how.decays),
        )
        level = LevelState(
            delta=on(level.delta, device),
            gradient=on(level.gradient, device),
            slots=[on(s, device) for s in level.slots],
        )
        update_level(how, level, on(random_gradient(), device), *(t.to(device) for t in (AT, DUE, SCALE)))
        return level.tensors()

    def on(pair, device):
        return Delta(*(side.to(device) for side in pair))

    there = moved("cuda")
    for name, tensor in moved("cpu").items():
        torch.testing.assert_close(there[name].cpu(), tensor, rtol=1e-4, atol=1e-5)
