"""The served form against the model itself: any cut, any neighbours, any slots; and rows of bytes that carry a slot."""

from __future__ import annotations

import pytest
import torch
from support.served import Served
from support.tiny_model import tiny_model

from hope_serve.model.cms import Delta
from hope_serve.model.config import TitansConfig
from hope_serve.model.serving.slab import Part, Slab, SlabLayout

EXACT = 1e-10  # fp64 through two layers
KINDS = {
    "linear": TitansConfig(num_heads=2, chunk_size=8, eta_max=0.3),
    "two clocks": TitansConfig(num_heads=2, chunk_size=4, memory_chunk_size=8, eta_max=0.3),
    "snapshot": TitansConfig(num_heads=4, chunk_size=8, read="snapshot"),
    "mlp": TitansConfig(num_heads=2, chunk_size=8, memory="mlp", mlp_hidden_size=16, eta_max=0.3),
    "full retention": TitansConfig(num_heads=2, chunk_size=8, retention="full", eta_max=0.3),
    "mlp, two clocks": TitansConfig(
        num_heads=2, chunk_size=4, memory_chunk_size=8, memory="mlp", mlp_hidden_size=16, eta_max=0.3
    ),
}


def taught(kind, batch=3, tokens=45):
    """A model, texts, what their users have learned, and the hidden rows that the model itself gives."""
    model = tiny_model(dtype=torch.float64, titans=KINDS[kind])
    ids = torch.randint(0, model.config.vocab_size, (batch, tokens))
    served = Served(model, batch + 1)
    deltas = tuple(
        Delta(*(0.05 * torch.randn(batch, *view.shape[1:], dtype=torch.float64) for view in pair))
        for pair in (
            (served.memories.views[f"{i}.delta.inner"], served.memories.views[f"{i}.delta.outer"]) for i in range(2)
        )
    )
    hidden, _ = model(ids, model.fresh_state(batch), deltas=deltas)
    return served, ids, deltas, hidden


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_are_the_models_own_wherever_each_sequence_is_cut(kind):
    served, ids, deltas, hidden = taught(kind)
    slots = (4, 1, 3)
    served.remember(slots, deltas)
    at = dict.fromkeys(slots, 0)
    for lengths in ((5, 13, 1), (3, 8, 16), (20, 1, 2)):
        runs = {slot: ids[b, at[slot] : at[slot] + n] for b, (slot, n) in enumerate(zip(slots, lengths, strict=True))}
        for b, (slot, rows) in enumerate(served.feed(runs).items()):
            assert (rows - hidden[b, at[slot] : at[slot] + len(rows)]).abs().max() < EXACT
            at[slot] += len(rows)
    for _ in range(17):
        tokens = {slot: int(ids[b, at[slot]]) for b, slot in enumerate(slots)}
        for b, (slot, row) in enumerate(served.step(tokens, padding=2).items()):
            assert (row - hidden[b, at[slot]]).abs().max() < EXACT
            at[slot] += 1


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_nobodys_slot_stays_empty_and_a_neighbours_memory_is_not_read(kind):
    served, ids, deltas, _ = taught(kind)
    served.remember((2,), tuple(Delta(*(side[:1] for side in pair)) for pair in deltas))
    before = served.rows.rows[0].clone()
    alone = served.feed({1: ids[0, :9]})[1]
    served.rows.clear(1)
    beside = served.feed({2: ids[1, :13], 1: ids[0, :9]})[1]
    served.step({2: 5}, padding=3)
    assert (alone - beside).abs().max() < EXACT
    assert torch.equal(served.rows.rows[0], before)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_slot_moved_as_one_row_goes_on_bit_for_bit(kind):
    served, ids, _, _ = taught(kind)
    served.feed({1: ids[0, :13]})
    kept = served.rows.save(1)
    first = served.feed({1: ids[0, 13:]})[1]
    served.rows.poison(3)
    served.rows.load(3, kept)
    assert torch.equal(served.feed({3: ids[0, 13:]})[3], first)
    served.rows.load(2, kept)
    served.rows.copy(2, 4)
    assert torch.equal(served.feed({4: ids[0, 13:]})[4], first)


def test_row_converts_what_it_is_given_and_views_what_it_holds():
    layout = SlabLayout({"a": Part((2, 3), torch.float16), "b": Part((), torch.int32), "c": Part((5,), torch.float32)})
    row = layout.row({"a": torch.ones(2, 3), "b": torch.tensor(7), "c": torch.arange(5.0)})
    named = layout.of_row(row)
    assert named["a"].dtype is torch.float16 and named["a"].sum() == 6
    assert int(named["b"]) == 7 and torch.equal(named["c"], torch.arange(5.0))
    slab = Slab(layout, 2, device="cpu")
    slab.load(2, row)
    assert torch.equal(slab.views["c"][2], torch.arange(5.0)) and not slab.views["c"][1].any()
