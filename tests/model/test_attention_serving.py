"""Attention by slot against a plain account of it: any cut, any neighbours, any slots, and caches that move."""

from __future__ import annotations

import math

import pytest
import torch
from support.served import Served
from support.tiny_attention import RANK, SHAPE, plain_hidden, tiny_part, tiny_weights

from hope_serve.model.attention_checkpoint import AttentionConfig, SourceNote
from hope_serve.model.attention_model import AttentionModel
from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import cms_shapes
from hope_serve.model.parts import MemoryPart
from hope_serve.model.serving.attention_kind import AttentionKind
from hope_serve.model.serving.model import context_limit

EXACT = 1e-10  # fp64 through three layers
SLOTS = (4, 1, 3)
CONTEXT = 64


def tiny_attention_model(**changes):
    projection, weight, bias = tiny_part()
    part = MemoryPart(
        tensors={
            "projection": projection,
            "log_rate": torch.linspace(-3, -2, SHAPE.num_layers, dtype=torch.float64),
            "decay_logit": torch.linspace(1, 2, SHAPE.num_layers, dtype=torch.float64),
            "token_weight.weight": weight,
            "token_weight.bias": bias,
        },
        base="",
        chunk_size=8,
    )
    weights = tiny_weights(**changes)
    config = AttentionConfig(
        name="tiny",
        vocab_size=SHAPE.vocab_size,
        hidden_size=SHAPE.hidden_size,
        num_layers=SHAPE.num_layers,
        num_heads=SHAPE.num_heads,
        num_key_heads=SHAPE.num_key_heads,
        head_size=SHAPE.head_size,
        wide_size=SHAPE.wide_size,
        norm_eps=SHAPE.norm_eps,
        inverse_frequencies=SHAPE.inverse_frequencies,
        biases=weights.layers.bias is not None,
        tied=weights.head is weights.embedding,
        max_context_tokens=CONTEXT,
        stop_tokens=(2,),
        source=SourceNote(name="tiny", licence="none", fingerprint=""),
    )
    return AttentionModel.of(config, weights, part)


def texts(count=3, tokens=45):
    return torch.randint(0, SHAPE.vocab_size, (count, tokens), generator=torch.Generator().manual_seed(5))


def memories(count=3):
    drawn = torch.randn(count, SHAPE.num_layers, SHAPE.hidden_size, RANK, generator=torch.Generator().manual_seed(6))
    return 0.05 * drawn.double()


def taught(*, on_kernels=False, **changes):
    """A served model with three users, their texts, and the hidden rows that the plain account gives.

    on_kernels: by the calls that a card gets; on a CPU their references answer.
    """
    model, ids, learned = tiny_attention_model(**changes), texts(), memories()
    served = Served(model, 4)
    for layer in served.model._parts.layers:
        layer.mixer._on_kernels = on_kernels
    served.remember(SLOTS, [Delta(learned[..., :0, :], learned)])
    projection = model.part.tensors["projection"]
    hidden = [plain_hidden(model.weights, row, projection, one) for row, one in zip(ids, learned, strict=True)]
    return served, ids, hidden


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{}, {"biases": False, "tied": False}, {"on_kernels": True}, {"on_kernels": True, "biases": False}],
    ids=["biases, tied", "plain, untied", "by kernels", "by kernels, plain"],
)
def test_rows_of_a_batch_are_the_plain_ones_wherever_each_sequence_is_cut(changes):
    served, ids, hidden = taught(**changes)
    at = dict.fromkeys(SLOTS, 0)
    for lengths in ((5, 13, 1), (3, 8, 16), (20, 1, 2)):
        runs = {slot: ids[b, at[slot] : at[slot] + n] for b, (slot, n) in enumerate(zip(SLOTS, lengths, strict=True))}
        for b, (slot, rows) in enumerate(served.feed(runs).items()):
            assert (rows - hidden[b][at[slot] : at[slot] + len(rows)]).abs().max() < EXACT
            at[slot] += len(rows)
    for _ in range(17):
        tokens = {slot: int(ids[b, at[slot]]) for b, slot in enumerate(SLOTS)}
        for b, (slot, row) in enumerate(served.step(tokens, padding=2).items()):
            assert (row - hidden[b][at[slot]]).abs().max() < EXACT
            at[slot] += 1


@torch.no_grad()
def test_an_empty_memory_is_the_model_to_the_bit():
    served, ids, _ = taught()
    slots = {1: ids[0, :21], 2: ids[0, :21]}
    served.memories.clear(1)
    read = served.feed(slots)
    for slot in slots:
        served.rows.clear(slot)
    served.deltas = None
    plain = served.feed(slots)
    assert torch.equal(read[1], plain[1]) and torch.equal(read[2], plain[2])


@torch.no_grad()
def test_a_cache_moved_to_another_slot_goes_on_bit_for_bit():
    served, ids, _ = taught()
    served.feed({1: ids[0, :13]})
    served.memories.copy(1, 2)
    kept = served.rows.save(1)
    assert kept.shape == (2, SHAPE.num_layers, 13, SHAPE.num_key_heads, SHAPE.head_size)
    first = served.feed({1: ids[0, 13:]})[1]
    served.rows.poison(2)
    served.rows.load(2, kept)
    served.rows.copy(2, 4)
    assert torch.equal(served.feed({2: ids[0, 13:]})[2], first)
    served.memories.copy(1, 4)
    assert torch.equal(served.feed({4: ids[0, 13:]})[4], first)


@torch.no_grad()
def test_a_slot_given_back_and_taken_again_reads_nothing_of_before():
    served, ids, hidden = taught()
    served.feed({1: ids[2]})
    served.rows.poison(1)
    served.rows.clear(1)
    rows = served.feed({1: ids[1, :30]})[1]
    assert (rows - hidden[1][:30]).abs().max() < EXACT


@torch.no_grad()
@pytest.mark.parametrize("on_kernels", [False, True])
def test_nobodys_slot_stays_empty(on_kernels):
    served, ids, _ = taught(on_kernels=on_kernels)
    served.feed({1: ids[0, :9]})
    served.step({1: 5}, padding=3)
    assert int(served.rows.lengths[0]) == 0 and int(served.rows.lengths[1]) == 10


def test_drift_is_the_norm_of_what_is_added_over_that_of_the_down_projections():
    model, learned = tiny_attention_model(), memories(1)
    added = (learned[0] @ model.part.tensors["projection"]).square().sum()
    wanted = math.sqrt(float(added / model.weights.layers.down.square().sum()))
    drift = AttentionKind(model).drift(0, Delta(learned[..., :0, :], learned))
    assert drift == pytest.approx(wanted, rel=1e-5)


def test_a_memory_is_its_columns_and_their_open_chunk_alone():
    size = (SHAPE.num_layers, SHAPE.hidden_size, RANK)
    assert cms_shapes(tiny_attention_model().config) == {"0.delta.outer": size, "0.gradient.outer": size}


@pytest.mark.parametrize(("asked", "limit"), [(0, CONTEXT), (32, 32), (1000, CONTEXT)])
def test_a_context_is_as_long_as_asked_and_as_the_model_knows(asked, limit):
    assert context_limit(AttentionKind(tiny_attention_model()), asked) == limit
