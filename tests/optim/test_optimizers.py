"""The levels' optimizers as pure functions."""

from __future__ import annotations

import pytest
import torch

from hope_serve.optim import OPTIMIZERS, make_optimizer

RATE, DECAY = torch.tensor(0.1), torch.tensor(0.9)


def walk(optimizer, gradients):
    delta = torch.zeros(3, 2)
    slots = tuple(torch.zeros(3, 2) for _ in range(optimizer.num_slots))
    for gradient in gradients:
        delta, slots = optimizer.update(delta, gradient, slots, rate=RATE, decay=DECAY)
    return delta, slots


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_gradient_only_decays(name):
    optimizer = make_optimizer(name)
    slots = tuple(torch.zeros(2) for _ in range(optimizer.num_slots))
    delta, _ = optimizer.update(torch.ones(2), torch.zeros(2), slots, rate=RATE, decay=DECAY)
    assert torch.equal(delta, torch.full((2,), 0.9))


def test_gradient_descent_follows_its_formula():
    gradients = [torch.randn(3, 2) for _ in range(3)]
    delta, slots = walk(make_optimizer("gd"), gradients)
    assert torch.allclose(delta, -0.1 * (0.81 * gradients[0] + 0.9 * gradients[1] + gradients[2]))
    assert slots == ()


def test_momentum_follows_its_formula():
    gradients = [torch.randn(3, 2) for _ in range(2)]
    delta, (momentum,) = walk(make_optimizer("momentum", momentum=0.5), gradients)
    assert torch.allclose(momentum, 0.5 * gradients[0] + gradients[1])
    assert torch.allclose(delta, -0.1 * (0.9 * gradients[0] + momentum))


def test_momentum_of_zero_is_gradient_descent_bit_for_bit():
    gradients = [torch.randn(3, 2) for _ in range(4)]
    plain, _ = walk(make_optimizer("gd"), gradients)
    without, _ = walk(make_optimizer("momentum", momentum=0.0), gradients)
    assert torch.equal(plain, without)


def test_update_changes_nothing_it_was_given():
    optimizer = make_optimizer("momentum")
    delta, slot = torch.ones(2), torch.ones(2)
    optimizer.update(delta, torch.ones(2), (slot,), rate=RATE, decay=DECAY)
    assert torch.equal(delta, torch.ones(2)) and torch.equal(slot, torch.ones(2))


def test_unknown_name_and_unstable_momentum_are_refused():
    with pytest.raises(ValueError, match="'adam' is unknown; choose one of gd, momentum"):
        make_optimizer("adam")
    with pytest.raises(ValueError, match=r"momentum is 1.0; it must lie in \[0, 1\)"):
        make_optimizer("momentum", momentum=1.0)
