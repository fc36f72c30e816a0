"""A converted model on a CUDA device: graphs over caches, lessons and conversations say what the CPU says."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import torch
from support.attention_checkpoint import converted, write_part
from support.engine_calls import ANN, BOB, adapt, generate, generate_all
from support.running_service import running_service

from hope_serve.memory.url import make_store
from hope_serve.model.load import load_model

pytestmark = [pytest.mark.cuda, pytest.mark.timeout(600)]
CLOSE = 2e-3  # of log-probabilities, fp32 on both


def text(seed, count):
    return torch.randint(3, 290, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def checkpoint(request, tmp_path_factory):
    sizes = {"hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 512}
    folder = converted(tmp_path_factory.mktemp("base"), request.param, **sizes)[0]
    return load_model(folder, write_part(folder.parent / "part.safetensors", folder))


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
    """What a service says of prompts alone and together, before and after lessons."""
    prompts = [text(seed, 1 + seed * 17 % 90) for seed in range(9)]
    said = await asyncio.gather(*(generate(service, p, max_tokens=40, logprobs=1) for p in prompts))
    lessons = (adapt(service, text(9, 70), owner=ANN), adapt(service, text(8, 41), owner=BOB))
    taught = await asyncio.gather(*lessons)
    said += [await generate(service, prompts[3], owner=who, max_tokens=30, logprobs=1) for who in (ANN, BOB)]
    said += await generate_all(service, prompts[5], n=3, max_tokens=20, temperature=0.7, seed=4, logprobs=1)
    return said, [one.metrics for one in taught]


async def test_tokens_and_lessons_are_those_of_the_cpu(on, checkpoint):
    async with on(checkpoint, "cpu", max_slots=6) as service:
        wanted, before = await conversation(service)
    async with on(checkpoint, "cuda", max_slots=6) as service:
        got, after = await conversation(service)
    assert [reply.tokens for reply in got] == [reply.tokens for reply in wanted]
    for ours, theirs in zip(got, wanted, strict=True):
        for one, other in zip(ours.logprobs, theirs.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=CLOSE)
    for ours, theirs in zip(after, before, strict=True):
        assert ours.nll_before == pytest.approx(theirs.nll_before, abs=CLOSE)
        assert ours.nll_after == pytest.approx(theirs.nll_after, abs=CLOSE)
        assert ours.update_norm == pytest.approx(theirs.update_norm, rel=2e-2)


async def test_deterministic_mode_is_the_same_to_the_bit_in_company(on, checkpoint):
    async with on(checkpoint, "cuda", deterministic=True, max_slots=8) as service:
        await adapt(service, text(9, 70))
        ask = lambda: generate(service, text(3, 71), owner=ANN, max_tokens=70, logprobs=5)
        alone = await ask()
        crowd = [generate(service, text(i, 3 + i), max_tokens=30) for i in range(9)]
        together = (await asyncio.gather(ask(), *crowd))[0]
    assert alone.tokens == together.tokens and alone.logprobs == together.logprobs


async def test_a_conversation_goes_on_as_one_long_prompt(on, checkpoint):
    async with on(checkpoint, "cuda", deterministic=True, max_slots=4) as service:
        first = await generate(service, text(1, 60), owner=ANN, session_id="s", max_tokens=30)
        second = await generate(service, text(2, 9), owner=ANN, session_id="s", max_tokens=30, logprobs=2)
        whole = await generate(service, [*text(1, 60), *first.tokens, *text(2, 9)], max_tokens=30, logprobs=2)
    assert second.session == "resumed" and second.logprobs == whole.logprobs


async def test_a_sequence_fills_its_context_to_the_end_beside_others(on, checkpoint):
    async with on(checkpoint, "cuda", max_slots=3, max_context_tokens=96) as service:
        calls = [generate(service, text(i, 96 - n), max_tokens=n) for i, n in enumerate((5, 40, 90, 16, 7))]
        replies = await asyncio.gather(*calls)
    assert [len(reply.tokens) for reply in replies] == [5, 40, 90, 16, 7]
