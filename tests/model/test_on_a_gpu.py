"""The served model on a CUDA device, where it runs on the kernels: the tokens are the reference's."""

from __future__ import annotations

import copy

import pytest
import torch
from support.served import Served
from support.tiny_model import tiny_model

from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.cms import Delta
from hope_serve.model.config import LevelConfig, TitansConfig
from hope_serve.model.serving.precision import Precision

pytestmark = pytest.mark.cuda

FP32 = Precision(compute=torch.float32, state=torch.float32, ring=torch.float32, deltas=torch.float32)
LOGITS = 2e-3  # fp32 on both sides, products summed in another order; titans_chunk multiplies in fp16
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


def pair(model, precision=FP32):
    """The same model on the CPU and on the device, with the same memories of three users."""
    there, here = Served(copy.deepcopy(model), 4, precision=FP32), Served(model, 4, device="cuda", precision=precision)
    torch.manual_seed(5)
    views = there.memories.views
    deltas = tuple(
        Delta(*(0.05 * torch.randn(3, *views[f"{i}.delta.{side}"].shape[1:]) for side in Delta._fields))
        for i in range(len(views) // 2)
    )
    for served in (there, here):
        served.remember((3, 1, 2), deltas)
    return there, here


def greedy(served, prompt, count, told=None):
    """Prompts in ragged pieces that end inside chunks, then ``count`` tokens; ids and logits of every step.

    ``told``: the tokens to go on with, [3, count], instead of the likeliest.
    """
    slots, at, hidden = (3, 1, 2), [0, 0, 0], {}
    for lengths in ((37, 5, 64), (100, 80, 1), None):
        runs = {}
        for b, slot in enumerate(slots):
            end = prompt.shape[1] if lengths is None else at[b] + lengths[b]
            runs[slot], at[b] = prompt[b, at[b] : end], end
        hidden = served.feed(runs)
    logits, tokens = served.model.logits(torch.stack([hidden[slot][-1] for slot in slots])), []
    seen = [logits.cpu()]
    for step in range(count):
        tokens.append(logits.argmax(-1).cpu() if told is None else told[:, step])
        rows = served.step(dict(zip(slots, tokens[-1].tolist(), strict=True)), padding=5)
        logits = served.model.logits(torch.stack([rows[slot] for slot in slots]))
        seen.append(logits.cpu())
    return torch.stack(tokens, 1), torch.stack(seen, 1)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_single_tokens_on_the_device_give_the_references_tokens(kind):
    there, here = pair(tiny_model(titans=KINDS[kind], **WIDE))
    prompt = torch.randint(0, there.model.config.vocab_size, (3, 150), generator=torch.Generator().manual_seed(1))
    expected, wanted = greedy(there, prompt, 80)
    _, logits = greedy(here, prompt, 80, told=expected)
    assert (logits - wanted).abs().max() < LOGITS * wanted.abs().max()
    # Where two logits are closer than that, either may be the larger.
    best, second = wanted.topk(2, -1).values.unbind(-1)
    clear = best - second > 2 * LOGITS * wanted.abs().max()
    assert clear.float().mean() > 0.8
    assert torch.equal(logits.argmax(-1)[clear], wanted.argmax(-1)[clear])


@torch.no_grad()
def test_the_bundled_model_on_the_device_says_what_it_says_on_the_cpu():
    there, here = pair(load_checkpoint(BUNDLED_CHECKPOINT).model)
    for served in (there, here):
        served.memories.rows.zero_()
    prompt = torch.randint(4, 4096, (3, 150), generator=torch.Generator().manual_seed(2))
    assert torch.equal(greedy(here, prompt, 96)[0], greedy(there, prompt, 96)[0])
