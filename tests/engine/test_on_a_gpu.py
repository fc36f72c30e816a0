"""A whole service on a CUDA device: graphs, steps launched ahead, lessons and tiers say what the CPU says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from support.engine_calls import ANN, adapt, generate, generate_all, ids
from support.running_service import running_service
from support.tiny_model import write_tiny_checkpoint

from hope_serve.api import Message
from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.memory.url import make_store
from hope_serve.model.checkpoint import load_checkpoint
from hope_serve.model.config import LevelConfig, TitansConfig
from hope_serve.tokenizer import Tokenizer

pytestmark = pytest.mark.cuda

LEVELS = (
    LevelConfig(hidden_size=192, chunk_size=64, rank=16, learning_rate=0.02),
    LevelConfig(hidden_size=192, chunk_size=128, rank=16, learning_rate=0.02, optimizer="momentum"),
    LevelConfig(hidden_size=192),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    titans = TitansConfig(num_heads=2, chunk_size=64, eta_max=0.2)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    return load_checkpoint(write_tiny_checkpoint(folder, hidden_size=128, titans=titans, levels=LEVELS))


@pytest.fixture
def on(tmp_path):
    """``async with on(checkpoint, device)``: a service with a store of its own."""

    @asynccontextmanager
    async def opened(checkpoint, device, **options):
        store = make_store(f"sqlite://{tmp_path}/{device}.db")
        await store.open()
        try:
            async with running_service(checkpoint, store, device=device, **options) as service:
                yield service
        finally:
            await store.close()

    return opened


async def conversation(service):
    """What a service says of prompts alone and together, before and after a lesson."""
    prompts = [ids(seed, 1 + seed * 17 % 90) for seed in range(9)]
    said = [r.tokens for r in await asyncio.gather(*(generate(service, p, max_tokens=40) for p in prompts))]
    taught = await adapt(service, ids(9, 200))
    said += [(await generate(service, prompts[3], owner=ANN, max_tokens=30)).tokens]
    said += [r.tokens for r in await generate_all(service, prompts[5], n=3, max_tokens=20, temperature=0.7, seed=4)]
    return said, taught.metrics


async def test_tokens_and_lessons_are_those_of_the_cpu(on, checkpoint):
    async with on(checkpoint, "cpu", max_slots=6) as service:
        wanted, before = await conversation(service)
    async with on(checkpoint, "cuda", max_slots=6) as service:
        got, after = await conversation(service)
    assert got == wanted
    assert after.nll_before == pytest.approx(before.nll_before, abs=2e-3)
    assert after.nll_after == pytest.approx(before.nll_after, abs=2e-3)
    assert after.update_norm == pytest.approx(before.update_norm, rel=2e-2)


async def test_deterministic_mode_is_the_same_to_the_bit_in_company_on_the_device(on, checkpoint):
    async with on(checkpoint, "cuda", deterministic=True, max_slots=8) as service:
        await adapt(service, ids(9, 140))
        ask = lambda: generate(service, ids(3, 71), owner=ANN, max_tokens=70, logprobs=5)
        alone = await ask()
        crowd = [generate(service, ids(i, 3 + i), max_tokens=30) for i in range(9)]
        together = (await asyncio.gather(ask(), *crowd))[0]
    assert alone.tokens == together.tokens and alone.logprobs == together.logprobs


async def test_conversation_on_the_device_goes_on_as_one_long_prompt(on, checkpoint):
    async with on(checkpoint, "cuda", deterministic=True, max_slots=4) as service:
        whole = await generate(service, ids(1, 64), max_tokens=64)
        first = await generate(service, ids(1, 64), owner=ANN, session_id="s", max_tokens=30)
        rest = await generate(service, [], owner=ANN, session_id="s", max_tokens=34)
    assert first.tokens + rest.tokens == whole.tokens


async def test_the_bundled_model_in_16_bit_learns_and_says_what_it_does_on_the_cpu(on):
    checkpoint = load_checkpoint(BUNDLED_CHECKPOINT)
    tokenizer = Tokenizer.load(checkpoint.tokenizer_path)
    told = [*tokenizer.encode_document("My dog is called Biscuit. I live in Lisbon. I like tea."), tokenizer.end]
    asked = [Message(role="user", text="Where do I live?")]
    replies, losses = [], []
    for device, dtype in (("cpu", "float32"), ("cuda", "float16")):
        async with on(checkpoint, device, max_slots=4) as service:
            assert service.info.dtype == dtype
            losses.append((await adapt(service, told)).metrics.nll_after)
            prompt = tokenizer.encode_chat(asked, reply=True)
            replies.append((await generate(service, prompt, owner=ANN, max_tokens=12, ignore_eos=False)).text)
    assert replies == ["You live in Lisbon."] * 2
    assert losses[1] == pytest.approx(losses[0], abs=5e-3)
