"""Where keys and values do not fit, vLLM lets a request go and reads it again: in a slot that is filled anew."""

from __future__ import annotations

import asyncio

import pytest
from support.attention_checkpoint import converted, write_part
from support.engine_calls import ANN, adapt, generate
from support.vllm_pair import pair, text

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
TOKEN_BYTES = 3 * 2 * 32 * 4
"""Keys and values of three layers, in 32 bits."""


async def test_a_request_that_had_to_give_way_goes_on_with_its_memory(tmp_path):
    served, _ = converted(tmp_path, "llama", **SIZES)
    part = write_part(tmp_path / "part.safetensors", served)
    room = 1300 * TOKEN_BYTES  # two of the four, besides their slots
    async with pair(served, tmp_path / "m.db", part=part, cache_bytes=room, max_batch_tokens=128) as both:
        await adapt(both.native, text(90, 70), owner=ANN, request_id="r1")
        prompts = [text(seed, 40) for seed in range(4)]
        calls = [asyncio.ensure_future(generate(both.vllm, p, owner=ANN, max_tokens=300)) for p in prompts]
        requests = both.engine._stepper._vllm.engine_core.engine_core.scheduler.requests
        given_way = 0
        while not all(call.done() for call in calls):
            given_way = max([given_way, *(request.num_preemptions for request in list(requests.values()))])
            await asyncio.sleep(0.002)
        assert given_way
        for prompt, call in zip(prompts, calls, strict=True):
            assert call.result().tokens == (await generate(both.native, prompt, owner=ANN, max_tokens=300)).tokens
