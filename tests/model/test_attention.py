"""Hope-Attention: what it reads, and the gradient by which it learns, against plain accounts of both."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.tiny_attention import RANK, SHAPE, plain_hidden, tiny_part, tiny_weights

from hope_serve.model.attention import MAX_TOKEN_WEIGHT, layer_forward
from hope_serve.model.attention_learn import (
    PADDING,
    SHARED,
    LayerFunctions,
    MemoryRule,
    Told,
    memory_gradient,
    place,
    read_hidden,
)

EXACT = 1e-11
ONE_PASS = LayerFunctions(read=lambda *args: layer_forward(*args)[0])


def packed(*texts):
    """Texts side by side in one row, each a segment."""
    inputs = [i for text in texts for i in text[:-1]]
    targets = [i for text in texts for i in text[1:]]
    positions = [p for text in texts for p in range(len(text) - 1)]
    segments = [n + 1 for n, text in enumerate(texts) for _ in text[1:]]
    ones = torch.ones(1, len(inputs), dtype=torch.float64)
    return Told(
        *(torch.tensor([x]) for x in (inputs, targets)), ones, torch.tensor([positions]), torch.tensor([segments])
    )


def text(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, SHAPE.vocab_size, (length,), generator=generator).tolist()


def memory(seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, SHAPE.num_layers, SHAPE.hidden_size, RANK, generator=generator, dtype=torch.float64) * 0.2


def where(rows, past=None):
    return place(SHAPE, rows.positions, rows.segments, torch.float64, past)


def plain_gradient(weights, ids, rule, b):
    """Autograd on the weighted sum of the text's losses, as a function of one memory [L, d, r]."""
    hidden = plain_hidden(weights, ids[:-1], rule.projection, b)
    counts = MAX_TOKEN_WEIGHT * torch.sigmoid(hidden.detach() @ rule.weight + rule.bias)
    losses = F.cross_entropy(hidden @ weights.head.T, torch.tensor(ids[1:]), reduction="none")
    return torch.autograd.grad((counts * losses).sum(), b, create_graph=True)[0]


@pytest.mark.parametrize("biases", [True, False])
def test_reading_equals_a_plain_account_of_the_model(biases):
    weights, (projection, *_), b = tiny_weights(biases=biases), tiny_part(), memory()
    rows = packed(text(12))
    got = read_hidden(SHAPE, weights, rows.inputs, where(rows), projection=projection, memory=b)
    assert (got[0] - plain_hidden(weights, text(12)[:-1], projection, b[0])).abs().max() < EXACT


def test_an_empty_memory_reads_as_the_model_without_one_to_the_bit():
    weights, (projection, *_) = tiny_weights(), tiny_part()
    rows, zero = packed(text(9)), torch.zeros_like(memory())
    with_zero = read_hidden(SHAPE, weights, rows.inputs, where(rows), projection=projection, memory=zero)
    assert torch.equal(
        with_zero, read_hidden(SHAPE, weights, rows.inputs, where(rows), projection=projection, memory=None)
    )


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_is_the_real_one_of_every_text_in_a_row(tied):
    weights, rule, b = tiny_weights(tied=tied), MemoryRule(*tiny_part()), memory()
    texts = (text(7, 1), text(11, 2))
    rows = packed(*texts)
    got = memory_gradient(SHAPE, weights, rows, where(rows), rule=rule, memory=b).gradient[0]
    leaf = b[0].clone().requires_grad_()
    expected = sum(plain_gradient(weights, ids, rule, leaf) for ids in texts)
    assert (got - expected).abs().max() < EXACT


def test_the_outer_gradient_flows_through_the_inner_one():
    weights, rule = tiny_weights(), MemoryRule(*(t.requires_grad_() for t in tiny_part()))
    rows, b = packed(text(10)), memory().requires_grad_()
    leaf = weights.layers.gate_up.requires_grad_()
    direction = torch.randn(b.shape[1:], generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    got = memory_gradient(SHAPE, weights, rows, where(rows), rule=rule, memory=b).gradient[0]
    inside = b[0]
    expected = plain_gradient(weights, text(10), rule, inside)
    wanted = (b, leaf, *rule)
    for mine, plain in zip(
        torch.autograd.grad((got * direction).sum(), wanted),
        torch.autograd.grad((expected * direction).sum(), wanted),
        strict=True,
    ):
        assert plain.abs().max() > 1e-6
        assert (mine - plain).abs().max() < 1e-9


def test_padding_and_masked_targets_teach_nothing():
    weights, rule = tiny_weights(), MemoryRule(*tiny_part())
    rows = packed(text(6))
    padded = Told(*(F.pad(t, (0, 3), value=fill) for t, fill in zip(rows, (0, 0, 0, 0, PADDING), strict=True)))
    alone = memory_gradient(SHAPE, weights, rows, where(rows), rule=rule, memory=None).gradient
    beside = memory_gradient(SHAPE, weights, padded, where(padded), rule=rule, memory=None).gradient
    assert (alone - beside).abs().max() < EXACT


def test_a_text_cut_in_two_sees_its_first_part_and_learns_from_the_second_alone():
    """Keys and values of the first part are constants: the second part's gradient does not reach into it."""
    weights, rule, whole = tiny_weights(), MemoryRule(*tiny_part()), packed(text(11))
    first, second = (Told(*(t[:, span] for t in whole)) for span in (slice(0, 6), slice(6, None)))
    past = memory_gradient(SHAPE, weights, first, where(first), rule=rule, memory=None).past
    leaf = memory().requires_grad_()
    cut = memory_gradient(
        SHAPE, weights, second, where(second, first.segments), rule=rule, memory=leaf, past=past
    ).gradient
    # The same by autograd: the first part is read without the memory, the second under it, behind those keys.
    expected = gradient_of_the_rest(weights, rule, first, second, leaf)
    assert (cut - expected).abs().max() < EXACT


def gradient_of_the_rest(weights, rule, first, second, leaf):
    layers = weights.layers.unbind()
    early, late = (F.embedding(rows.inputs, weights.embedding) for rows in (first, second))
    for i, layer in enumerate(layers):
        early, trace = layer_forward(early, layer, SHAPE, where(first), rule.projection[i], None)
        place_ = where(second, first.segments)
        kept = (trace.key.detach(), trace.value.detach())
        late, _ = layer_forward(late, layer, SHAPE, place_, rule.projection[i], leaf[:, i], _past(*kept))
    hidden = F.rms_norm(late, (SHAPE.hidden_size,), weights.norm, SHAPE.norm_eps)
    counts = MAX_TOKEN_WEIGHT * torch.sigmoid(hidden.detach() @ rule.weight + rule.bias)
    losses = F.cross_entropy((hidden @ weights.head.T)[0], second.targets[0], reduction="none")
    return torch.autograd.grad((counts[0] * losses).sum(), leaf)[0]


def _past(key, value):
    from hope_serve.model.attention import Past

    return Past(key, value)


def test_questions_that_share_a_beginning_read_as_if_each_stood_alone():
    weights, (projection, *_), b = tiny_weights(), tiny_part(), memory()
    start, endings = text(4, 3), (text(5, 4), text(6, 5))
    tokens = torch.tensor([[*start, *endings[0], *endings[1]]])
    positions = torch.tensor([[*range(4), *range(4, 9), *range(4, 10)]])
    segments = torch.tensor([[SHARED] * 4 + [1] * 5 + [2] * 6])
    here = place(SHAPE, positions, segments, torch.float64)
    got = read_hidden(SHAPE, weights, tokens, here, projection=projection, memory=b)[0]
    for ending, span in zip(endings, (slice(4, 9), slice(9, 15)), strict=True):
        alone = plain_hidden(weights, [*start, *ending], projection, b[0])[4:]
        assert (got[span] - alone).abs().max() < EXACT


def test_memories_of_a_batch_do_not_meet():
    weights, (projection, *_) = tiny_weights(), tiny_part()
    rows = packed(text(8))
    two = Told(*(torch.cat([t, t]) for t in rows))
    both = torch.cat([memory(1), memory(2)])
    got = read_hidden(SHAPE, weights, two.inputs, where(two), projection=projection, memory=both)
    for index in range(2):
        alone = plain_hidden(weights, text(8)[:-1], projection, both[index])
        assert (got[index] - alone).abs().max() < EXACT
