"""Which optimizer moves what, and that M3 as the outer optimizer is the levels' own rule."""

from __future__ import annotations

import math

import pytest
import torch
from support.tiny_model import tiny_model
from torch import nn

from hope_serve.optim import MultiScaleMomentum
from hope_serve.training.config import ScheduleConfig
from hope_serve.training.outer import ADAM_LENGTH, M3, make_outer

RULE = MultiScaleMomentum(frequency=2)


def test_a_step_goes_where_the_levels_rule_goes_and_is_as_long_as_adams():
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.randn(2, 6, 10, dtype=torch.float64))
    before, gradients = matrix.detach().clone(), [torch.randn_like(matrix) for _ in range(5)]
    optimizer = M3([matrix], RULE, lr=0.1, weight_decay=0.0)
    delta = torch.zeros_like(matrix)
    slots = tuple(torch.zeros(2, *shape, dtype=torch.float64) for shape in RULE.slot_shapes((6, 10)))
    one = torch.ones((), dtype=torch.float64)
    for gradient in gradients:
        matrix.grad = gradient
        optimizer.step()
        step, slots = RULE.update(torch.zeros_like(delta), gradient, slots, rate=one, decay=one)
        delta += 0.1 * ADAM_LENGTH * math.sqrt(60) * step / torch.linalg.matrix_norm(step, keepdim=True)
    torch.testing.assert_close(matrix.detach() - before, delta, rtol=1e-12, atol=1e-12)
    root_mean_square = step.div(torch.linalg.matrix_norm(step, keepdim=True)).square().mean(
        (-2, -1)
    ).sqrt() * math.sqrt(60)
    torch.testing.assert_close(root_mean_square, torch.ones(2, dtype=torch.float64))


def test_a_factor_on_the_loss_changes_no_step():
    moved = []
    for factor in (1.0, 1e3):
        matrix = nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
        optimizer = M3([matrix], RULE, lr=0.1, weight_decay=0.0)
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            matrix.grad = factor * torch.randn(3, 4, dtype=torch.float64, generator=generator)
            optimizer.step()
        moved.append(matrix.detach())
    torch.testing.assert_close(*moved)


def test_decay_shrinks_a_matrix_without_a_gradient_of_its_own():
    matrix = nn.Parameter(torch.ones(3, 4))
    matrix.grad = torch.zeros(3, 4)
    M3([matrix], RULE, lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(matrix.detach(), torch.full((3, 4), 0.95))


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="closure is given, and M3 takes none"):
        M3([nn.Parameter(torch.ones(2, 2))], RULE, lr=0.1, weight_decay=0.0).step(lambda: 0.0)


@pytest.mark.parametrize("name", ["adamw", "m3"])
def test_every_parameter_has_one_optimizer_and_matrices_of_blocks_have_m3(name):
    model = tiny_model().requires_grad_(True)
    optimizers = make_outer(model, ScheduleConfig(seconds=1.0, optimizer=name))
    owned = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    by_m3 = {id(p) for o in optimizers if isinstance(o, M3) for group in o.param_groups for p in group["params"]}
    names = {n for n, p in model.named_parameters() if id(p) in by_m3}
    if name == "adamw":
        assert not names
        return
    assert {"blocks.0.titans.input.weight", "blocks.0.levels.0.inner", "blocks.0.titans.key"} <= names
    assert not {n for n in names if n.endswith(("conv", "gates", "log_rate", "decay_logit", "scale", "embedding"))}
