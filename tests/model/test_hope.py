"""The whole model, fp64 where numbers are compared."""

from __future__ import annotations

import pytest
import torch
from support.model_oracle import ModelOracle
from support.tiny_model import tiny_config, tiny_model

from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState
from hope_serve.model.config import TitansConfig
from hope_serve.model.learn import level_rules, read_deltas

EXACT = 1e-10  # fp64 through two layers
SPLITS = ((45,), (1,) * 45, (1, 6, 2, 9, 8, 16, 3), (8, 8, 29))
KINDS = {
    "linear": TitansConfig(num_heads=2, chunk_size=8, eta_max=0.3),
    "two clocks": TitansConfig(num_heads=2, chunk_size=4, memory_chunk_size=8, eta_max=0.3),
    "snapshot": TitansConfig(num_heads=4, chunk_size=8, read="snapshot"),
    "full retention": TitansConfig(num_heads=2, chunk_size=8, retention="full", eta_max=0.3),
    "mlp": TitansConfig(num_heads=2, chunk_size=8, memory="mlp", mlp_hidden_size=12, eta_max=0.3),
    "mlp snapshot": TitansConfig(num_heads=2, chunk_size=8, memory="mlp", mlp_hidden_size=12, read="snapshot"),
    "mlp, hidden rows": TitansConfig(num_heads=2, chunk_size=8, memory="mlp", mlp_hidden_size=12, dgd_hidden=True),
    "the paper's letter": TitansConfig(
        num_heads=1, chunk_size=8, memory="mlp", mlp_hidden_size=24, read="snapshot", retention="full"
    ),
}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model_and_tokens(kind: str, batch: int = 2):
    model = tiny_model(dtype=torch.float64, titans=KINDS[kind])
    return model, torch.randint(0, model.config.vocab_size, (batch, 45))


def taught(model, batch: int = 2):
    """Random deltas of a plausible size."""
    torch.manual_seed(5)
    cms = CmsState.fresh(model, batch).map(lambda t: torch.randn_like(t) * 0.2)
    return cms, read_deltas(level_rules(model), cms, Cadence(chunk_sizes=(16, 32), tokens=5))


def run(model, tokens, split, deltas=None):
    state, at, out = model.fresh_state(tokens.shape[0]), 0, []
    for length in split:
        hidden, state = model(tokens[:, at : at + length], state, consumed=at, deltas=deltas)
        out.append(hidden)
        at += length
    return torch.cat(out, 1), state


@pytest.mark.parametrize("kind", KINDS)
def test_model_equals_the_token_by_token_oracle(kind):
    model, tokens = model_and_tokens(kind)
    _, deltas = taught(model)
    hidden, _ = run(model, tokens, (45,), deltas)
    for b in range(2):
        expected = ModelOracle(model, [(d.inner[b], d.outer[b]) for d in deltas]).run(tokens[b])
        assert (hidden[b] - expected).abs().max() < EXACT


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_prompt_is_cut_never_matters(kind):
    model, tokens = model_and_tokens(kind)
    whole, state = run(model, tokens, SPLITS[0])
    for split in SPLITS[1:]:
        parts, other = run(model, tokens, split)
        assert (whole - parts).abs().max() < EXACT
        for name, tensor in state.tensors().items():
            assert (tensor - other.tensors()[name]).abs().max() < EXACT, (split, name)


@pytest.mark.parametrize("kind", KINDS)
def test_no_hidden_vector_sees_a_later_token(kind):
    model, tokens = model_and_tokens(kind)
    before, _ = run(model, tokens, (45,))
    tokens[:, 30] = (tokens[:, 30] + 1) % model.config.vocab_size
    after, _ = run(model, tokens, (45,))
    assert torch.equal(before[:, :30], after[:, :30])
    assert not torch.equal(before[:, 30:], after[:, 30:])


@pytest.mark.parametrize("kind", KINDS)
def test_two_sequences_in_one_batch_do_not_touch(kind):
    model, tokens = model_and_tokens(kind)
    together, _ = run(model, tokens, (45,))
    tokens[1] = (tokens[1] + 7) % model.config.vocab_size
    beside_another, _ = run(model, tokens, (45,))
    assert torch.equal(together[0], beside_another[0])


def test_state_survives_a_copy_bit_for_bit():
    model, tokens = model_and_tokens("linear")
    _, state = run(model, tokens, (13,))
    copied = state.with_tensors({name: tensor.clone() for name, tensor in state.tensors().items()})
    one, _ = model(tokens[:, 13:], state, consumed=13)
    two, _ = model(tokens[:, 13:], copied, consumed=13)
    assert torch.equal(one, two)


def test_every_initial_state_gets_an_outer_gradient():
    for kind in KINDS:
        model = tiny_model(dtype=torch.float64, titans=KINDS[kind]).requires_grad_()
        tokens = torch.randint(0, model.config.vocab_size, (2, 45))
        hidden, _ = run(model, tokens, (45,))
        (hidden**3).sum().backward()
        for name, parameter in model.named_parameters():
            if ".titans." in name:
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, (kind, name)


def test_64k_tokens_stay_finite():
    model = tiny_model(titans=TitansConfig(num_heads=2, chunk_size=64, eta_max=0.1), num_layers=1)
    state = model.fresh_state(1)
    tokens = torch.randint(0, 4, (1, 4096))
    for part in range(16):
        hidden, state = model(tokens, state, consumed=part * 4096)
    assert torch.isfinite(hidden).all()
    assert all(torch.isfinite(t).all() for t in state.tensors().values())


def test_config_names_field_value_and_limit_of_what_it_refuses():
    with pytest.raises(ValueError, match="hidden_size 30 is not a multiple of num_heads 4"):
        tiny_config(hidden_size=30, titans=TitansConfig(num_heads=4))
    with pytest.raises(ValueError, match=r"levels.chunk_size 24 is not a multiple of 16"):
        levels = tiny_config().levels
        tiny_config(levels=(levels[0], type(levels[1])(hidden_size=8, chunk_size=24, rank=2)))
