"""Rows packed behind each other, as a GPU runs them, against sequences side by side."""

from __future__ import annotations

import pytest
import torch
from support.tiny_model import tiny_model

from hope_serve.model import carry
from hope_serve.model.config import TitansConfig

EXACT = 1e-10  # fp64 through two layers
KINDS = {
    "causal": TitansConfig(num_heads=2, chunk_size=8, eta_max=0.3),
    "two clocks": TitansConfig(num_heads=2, chunk_size=4, memory_chunk_size=8, eta_max=0.3),
    "snapshot": TitansConfig(num_heads=4, chunk_size=8, read="snapshot"),
}


@pytest.fixture
def packed(monkeypatch):
    """Chooses the packed form, on any device."""

    def choose(*, used):
        monkeypatch.setattr(carry, "runs_packed", lambda x, weights, rule: used)

    return choose


def run(model, tokens, lengths):
    """A piece that ends inside a chunk, one of which some is padding, then single tokens."""
    hidden, state = model(tokens[:, :9], model.fresh_state(len(tokens)))
    ragged, state = model(tokens[:, 9:12], state, consumed=9, lengths=lengths)
    parts = [hidden, *(row[:count] for row, count in zip(ragged, lengths, strict=True))]
    state = state.with_tensors({name: t.contiguous() for name, t in state.tensors().items()})
    consumed = (9 + lengths).tolist()
    for column in range(12, 30):
        parts.append(model.decode(tokens[:, column], state))
        consumed = [count + 1 for count in consumed]
        model.commit_full(state, consumed)
    return parts, state


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_give_what_sequences_side_by_side_give(packed, kind):
    model = tiny_model(dtype=torch.float64, titans=KINDS[kind]).freeze()
    tokens, lengths = torch.randint(0, model.config.vocab_size, (3, 30)), torch.tensor([3, 1, 2])
    packed(used=False)
    expected, wanted = run(model, tokens, lengths)
    packed(used=True)
    parts, state = run(model, tokens, lengths)
    for part, other in zip(parts, expected, strict=True):
        assert (part - other).abs().max() < EXACT
    for name, tensor in wanted.tensors().items():
        assert (state.tensors()[name] - tensor).abs().max() < EXACT, name


def test_gradients_through_packed_rows_are_the_same(packed):
    model = tiny_model(dtype=torch.float64, titans=KINDS["causal"]).freeze()
    x = torch.randn(2, 11, model.config.hidden_size, dtype=torch.float64, requires_grad=True)
    block, gradients = model.blocks[0], []
    for used in (False, True):
        packed(used=used)
        mixer = carry.ChunkMixer(model.fresh_state(2).layers[0], consumed=0)
        (gradient,) = torch.autograd.grad(block.titans(x, mixer).square().sum(), x)
        gradients.append(gradient)
    assert (gradients[0] - gradients[1]).abs().max() < EXACT * gradients[0].abs().max()
