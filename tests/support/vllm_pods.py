"""Whole servers of any role and engine on one real Valkey, over a converted checkpoint with a memory part."""

from __future__ import annotations

from contextlib import asynccontextmanager

from support.attention_checkpoint import converted, write_part
from support.redis_server import RedisServer
from support.server_running import connect, server_config

from hope_serve.api import MemoryChoice, SamplingParams
from hope_serve.memory.redis.make import install_functions
from hope_serve.server.serve import running

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
GREEDY = SamplingParams(temperature=0.0, max_tokens=10, ignore_eos=True)
LESSONS = ["My dog is called Biscuit. " * 6, "I like tea without sugar. " * 6]


@asynccontextmanager
async def store_and_pods(folder):
    """``async with opened(**settings) as client``: a pod with a client of it; one of vLLM's at a time."""
    valkey = RedisServer(folder / "valkey", appendonly="no").start()
    await install_functions(valkey.url)
    served, _ = converted(folder, "llama", **SIZES)
    write_part(served / "memory.safetensors", served)

    @asynccontextmanager
    async def opened(**changes):
        settings = {"url": valkey.url, "durability": "volatile", "max_slots": 4, "max_context_tokens": 400} | changes
        config = server_config(served, folder, vllm={"cache_bytes": 2**27}, **settings)
        async with running(config) as server, connect(server) as client:
            client.service = server.service
            yield client

    try:
        yield opened
    finally:
        valkey.kill()


async def said(pod, user, prompt="My dog", **choice):
    """The version that was read, and the tokens of a greedy reply."""
    answer = await pod.generate(prompt, user_id=user, sampling=GREEDY, memory=MemoryChoice(**choice))
    return answer.started.memory_version, answer.choices[0].token_ids
