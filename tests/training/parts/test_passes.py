"""The written-out passes of a training step give what autograd gives over the plain ones, second derivatives too."""

from __future__ import annotations

import pytest
import torch
from support.tiny_attention import RANK, SHAPE, tiny_part, tiny_weights

from hope_serve.model.attention_learn import (
    PADDING,
    SHARED,
    LayerFunctions,
    MemoryRule,
    Told,
    as_many_tokens,
    memory_gradient,
    place,
    read_hidden,
)
from hope_serve.training.parts.passes.layer import Passes

CLOSE = 1e-9
ROWS, TOKENS = 2, 13


def draw(*size, seed):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(seed):
    """Two rows of texts, the second with padding behind it; not every target counts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, SHAPE.vocab_size, (ROWS, TOKENS + 1), generator=generator)
    segments = torch.tensor([[1] * 6 + [2] * 7, [SHARED] * 2 + [1] * 4 + [2] * 4 + [PADDING] * 3])
    positions = torch.arange(TOKENS).expand(ROWS, -1)
    mask = (segments > SHARED).double()
    mask[0, 3] = 0.0
    return Told(ids[:, :-1], ids[:, 1:], mask, positions, segments)


def model(biases):
    """Weights and rule that all want a gradient, but those that a trainer leaves frozen."""
    weights = tiny_weights(biases=biases)
    layers = weights.layers
    for tensor in (layers.query_key_value, layers.output, layers.gate_up, layers.down):
        tensor.requires_grad_()
    rule = MemoryRule(*(t.requires_grad_() for t in tiny_part()))
    return weights, rule, (layers.query_key_value, layers.output, layers.gate_up, layers.down, *rule)


def memory():
    return (draw(ROWS, SHAPE.num_layers, SHAPE.hidden_size, RANK, seed=5) * 0.2).requires_grad_()


def told(weights, rule, functions, b, *, past):
    """The gradient of one chunk; with ``past``, of a chunk after another."""
    first, second = rows(1), rows(2)
    earlier, segments = None, None
    if past:
        where = place(SHAPE, first.positions, first.segments, torch.float64)
        earlier = memory_gradient(SHAPE, weights, first, where, rule=rule, memory=b, functions=functions).past
        segments = first.segments
    where = place(SHAPE, second.positions, second.segments, torch.float64, segments)
    return memory_gradient(SHAPE, weights, second, where, rule=rule, memory=b, past=earlier, functions=functions)


def compared(make, wanted, functions):
    """Value and gradients by the plain functions and by these; the largest relative difference of any."""
    results = []
    for one in (LayerFunctions(counted=functions.counted), functions):
        value = make(one)
        direction = draw(*value.shape, seed=9)
        gradients = torch.autograd.grad((value * direction).sum(), wanted, allow_unused=True)
        results.append((value, *gradients))
    for plain, mine in zip(*results, strict=True):
        assert (plain is None) == (mine is None)
        if plain is not None:
            assert (plain - mine).abs().max() <= CLOSE * plain.abs().max().clamp(min=1e-3)


FUNCTIONS = Passes().functions()


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("biases", [True, False])
def test_a_lesson_and_its_outer_gradient_are_autograds(biases, empty, past):
    weights, rule, wanted = model(biases)
    b = None if empty else memory()
    wanted = wanted if empty else (*wanted, b)
    compared(lambda functions: told(weights, rule, functions, b, past=past).gradient, wanted, FUNCTIONS)


def test_keys_and_values_that_later_chunks_see_are_the_same():
    weights, rule, _ = model(True)
    plain, mine = (told(weights, rule, functions, None, past=True).past for functions in (None, FUNCTIONS))
    for one, other in zip(plain, mine, strict=True):
        assert (one.key - other.key).abs().max() < CLOSE
        assert (one.value - other.value).abs().max() < CLOSE
        assert not other.key.requires_grad


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("biases", [True, False])
def test_reading_and_its_gradient_are_autograds(biases, empty):
    weights, rule, wanted = model(biases)
    asked = rows(3)
    where = place(SHAPE, asked.positions, asked.segments, torch.float64)
    b = None if empty else memory()

    def make(functions):
        return read_hidden(
            SHAPE, weights, asked.inputs, where, projection=rule.projection, memory=b, functions=functions
        )

    compared(make, wanted[:4] if empty else (*wanted[:5], b), FUNCTIONS)


def test_a_lesson_asked_about_afterwards_is_autograds_in_its_part():
    """Teach twice, read under what was learned: the whole way that an outer gradient takes."""
    weights, rule, wanted = model(True)
    asked = rows(4)
    where = place(SHAPE, asked.positions, asked.segments, torch.float64)

    def make(functions):
        b = -0.1 * told(weights, rule, functions, None, past=False).gradient
        b = b - 0.1 * told(weights, rule, functions, b, past=True).gradient
        hidden = read_hidden(
            SHAPE, weights, asked.inputs, where, projection=rule.projection, memory=b, functions=functions
        )
        return functions.cross_entropies(hidden.flatten(0, 1), weights.head, asked.targets.flatten())

    compared(make, wanted, FUNCTIONS._replace(counted=as_many_tokens))


def test_what_is_taken_at_the_head_is_autograds():
    weights, _, _ = model(True)
    hidden, wanted_hidden = (draw(7, SHAPE.hidden_size, seed=seed) for seed in (1, 2))
    hidden.requires_grad_()
    weight = draw(7, seed=3).abs().requires_grad_()
    with torch.no_grad():
        weight[2] = 0.0
    targets = torch.arange(7) % SHAPE.vocab_size
    compared(lambda f: f.loss_gradient(hidden, weights.head, targets, weight), (hidden, weight), FUNCTIONS)
    compared(lambda f: f.cross_entropies(hidden, weights.head, targets), (hidden,), FUNCTIONS)
    compared(lambda f: f.divergences(hidden, weights.head, wanted_hidden), (hidden,), FUNCTIONS)


def test_a_pass_that_nothing_is_learned_through_keeps_no_graph():
    weights, rule, _ = model(False)
    with torch.no_grad():
        lesson = told(weights, rule, FUNCTIONS, memory(), past=True)
    assert not lesson.gradient.requires_grad
