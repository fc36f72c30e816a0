"""The model on a CUDA device, where it runs on the kernels: the tokens and the learning are the reference's."""

from __future__ import annotations

import copy

import pytest
import torch
from support.tiny_model import tiny_model

from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState
from hope_serve.model.config import LevelConfig, TitansConfig
from hope_serve.model.learn import advance, read_deltas, segment_gradient

pytestmark = pytest.mark.cuda

LOGITS = 2e-3  # fp32 on both sides, products summed in another order
LEARNED = 2e-3  # relative, of a chunk's step: the products of titans_chunk take fp16 numbers

WIDE = {
    "hidden_size": 128,
    "levels": (
        LevelConfig(hidden_size=192, chunk_size=64, rank=16, learning_rate=0.02),
        LevelConfig(hidden_size=192, chunk_size=128, rank=16, learning_rate=0.02, optimizer="momentum"),
        LevelConfig(hidden_size=192),
    ),
}
KINDS = {
    "heads of 64": TitansConfig(num_heads=2, chunk_size=64, eta_max=0.2),
    "heads of 32, chunk 16": TitansConfig(num_heads=4, chunk_size=16, eta_max=0.2),
    "snapshot": TitansConfig(num_heads=2, chunk_size=32, read="snapshot"),
    "mlp": TitansConfig(num_heads=2, chunk_size=32, memory="mlp", mlp_hidden_size=128, eta_max=0.2),
}


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def pair(kind):
    """The same model on the CPU and on the device."""
    model = tiny_model(titans=KINDS[kind], **WIDE)
    return copy.deepcopy(model).freeze(), model.to("cuda").freeze()


def greedy(model, prompt, count, deltas=None):
    """Prefill in pieces that end inside chunks, then ``count`` tokens; ids and logits of every step."""
    device = model.embedding.device
    prompt = prompt.to(device)
    state, at = model.fresh_state(len(prompt)), 0
    for length in (37, 100, prompt.shape[1] - 137):
        hidden, state = model(prompt[:, at : at + length], state, consumed=at, deltas=deltas)
        at += length
    state = state.with_tensors({name: t.contiguous() for name, t in state.tensors().items()})
    logits, tokens = model.logits(hidden[:, -1]), []
    seen = [logits.cpu()]
    for _ in range(count):
        tokens.append(logits.argmax(-1))
        logits = model.logits(model.decode(tokens[-1], state, deltas=deltas))
        at += 1
        model.commit_full(state, [at] * len(prompt))
        seen.append(logits.cpu())
    return torch.stack(tokens, 1).cpu(), torch.stack(seen, 1)


def random_deltas(model, batch):
    generator = torch.Generator().manual_seed(5)
    cms = CmsState.fresh(model, batch).map(lambda t: 0.05 * torch.randn(t.shape, generator=generator).to(t.device))
    return read_deltas(model, cms, Cadence(chunk_sizes=(64, 128), tokens=64))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_prefill_and_decode_on_the_device_give_the_reference_s_tokens(kind):
    there, here = pair(kind)
    prompt = torch.randint(0, there.config.vocab_size, (3, 150), generator=torch.Generator().manual_seed(1))
    expected, wanted = greedy(there, prompt, 80, random_deltas(there, 3))
    tokens, logits = greedy(here, prompt, 80, random_deltas(here, 3))
    assert torch.equal(tokens, expected)
    assert (logits - wanted).abs().max() < LOGITS * wanted.abs().max()


@torch.no_grad()
def test_the_bundled_model_on_the_device_says_what_it_says_on_the_cpu():
    there = load_checkpoint(BUNDLED_CHECKPOINT).model.freeze()
    here = copy.deepcopy(there).to("cuda").freeze()
    prompt = torch.randint(4, 4096, (2, 150), generator=torch.Generator().manual_seed(2))
    assert torch.equal(greedy(here, prompt, 96)[0], greedy(there, prompt, 96)[0])


def learned(model, tokens):
    """Three segments of a text, as an adaptation takes them: deltas, open chunks, momentum."""
    tokens = tokens.to(model.embedding.device)
    cms, cadence, state = CmsState.fresh(model, len(tokens)), Cadence(chunk_sizes=(64, 128)), None
    state = model.fresh_state(len(tokens))
    for _ in range(3):
        length = min(cadence.room(), tokens.shape[1] - 1 - cadence.tokens)
        at = slice(cadence.tokens, cadence.tokens + length)
        segment = segment_gradient(
            model,
            tokens[:, :-1][:, at],
            tokens[:, 1:][:, at],
            state,
            tuple(level.delta for level in cms.levels),
            consumed=cadence.tokens,
        )
        cadence = cadence.after(length)
        with torch.no_grad():
            cms = advance(model, cms, segment.gradients, cadence.fired())
        state = segment.state.with_tensors({n: t.detach() for n, t in segment.state.tensors().items()})
    return cms


@pytest.mark.parametrize("kind", KINDS)
def test_adapting_on_the_device_learns_what_the_reference_learns(kind):
    there, here = pair(kind)
    tokens = torch.randint(0, there.config.vocab_size, (2, 180), generator=torch.Generator().manual_seed(3))
    wanted, got = learned(there, tokens).tensors(), learned(here, tokens).tensors()
    for name, tensor in wanted.items():
        assert tensor.abs().max() > 0 or name.endswith("gradient.inner") or name.endswith("gradient.outer")
        assert (got[name].cpu() - tensor).norm() <= LEARNED * tensor.norm().clamp(min=1e-6), name
