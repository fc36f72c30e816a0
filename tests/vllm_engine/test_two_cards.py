"""Every layer divided among two of vLLM's workers, each a process: replies, memories and faults are as on one card."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal

import pytest
import pytest_asyncio
import torch
from support.attention_checkpoint import converted, write_part
from support.engine_calls import ANN, BOB, adapt, generate
from support.vllm_pair import pair, text

from hope_serve.errors import Unavailable
from hope_serve.vllm_engine.stepper import WorkerLost
from hope_serve.vllm_plugin.handover import Handover

SIZES = {"hidden_size": 128, "num_attention_heads": 4, "max_position_embeddings": 512}

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=(2, 1), ids="{} heads of keys".format)
async def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_cards")
    served, _ = converted(folder, "qwen2", **SIZES, num_key_value_heads=request.param)
    part = write_part(folder / "part.safetensors", served)
    async with pair(served, folder / "m.db", part=part, cards=2) as running:
        yield running


async def test_users_memories_reach_both_cards(both):
    for owner, seed in ((ANN, 90), (BOB, 91)):
        await adapt(both.native, text(seed, 70), owner=owner, request_id=f"two-{owner.user}")
    told = set()
    for owner in (ANN, BOB, None):
        ours, theirs = [
            await generate(service, text(3, 33), owner=owner, max_tokens=20, logprobs=2)
            for service in (both.native, both.vllm)
        ]
        assert theirs.tokens == ours.tokens
        likely, told_likely = [[one.logprob for one in reply.logprobs] for reply in (ours, theirs)]
        assert told_likely == pytest.approx(likely, abs=1e-4)
        told.add(tuple(theirs.tokens))
    assert len(told) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
async def test_a_memory_crosses_to_a_worker_as_it_is(dtype):
    load = torch.randn(3, 512, 8).to(dtype)
    beside: list[pickle.PickleBuffer] = []
    message = pickle.dumps(Handover(loads=[load, None]), protocol=5, buffer_callback=beside.append)
    assert len(message) < 1000, "its bytes are in the message"
    arrived, nothing = pickle.loads(message, buffers=beside).loads
    assert nothing is None
    assert arrived.dtype == dtype
    assert torch.equal(arrived, load)


async def test_a_worker_that_dies_ends_the_engine_though_nobody_asks(both):
    executor = both.engine._stepper._vllm.engine_core.engine_core.model_executor
    os.kill(executor.workers[1].proc.pid, signal.SIGKILL)
    await asyncio.wait_for(both.vllm.ended(), 10)
    assert isinstance(both.vllm.failure, WorkerLost)
    assert not both.vllm.ready
    with pytest.raises(Unavailable):
        await generate(both.vllm, text(3, 33), max_tokens=2)
