"""Everything that a caller can get wrong over the wire: each its status, and the server goes on as if nothing was."""

from __future__ import annotations

import grpc
import pytest
import pytest_asyncio
from support.server_bad_inference import inference_vectors
from support.server_bad_memory import memory_vectors
from support.server_running import connect, server_config
from support.server_vector import LIMIT, VOCAB, Vector

from hope_serve.api import SamplingParams
from hope_serve.client import AsyncHopeClient
from hope_serve.server.serve import running

GOOD = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
STREAMS = ("InferenceService/GenerateStream", "MemoryService/ExportMemory")
TABLE = [*inference_vectors(), *memory_vectors()]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(checkpoint_folder, tmp_path_factory):
    config = server_config(
        checkpoint_folder, tmp_path_factory.mktemp("bad"), max_prompt_tokens=LIMIT, max_adapt_tokens=LIMIT, max_slots=8
    )
    async with running(config) as started, connect(started) as client:
        assert started.service.info.vocab_size == VOCAB
        await client.adapt("ann", "My dog is called Biscuit.", request_id="known")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server):
    async with connect(server) as connected:
        yield connected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good_answer(client):
    return await _good(client)


async def test_there_are_enough_of_them():
    assert len(TABLE) >= 60
    assert len({vector.name for vector in TABLE}) == len(TABLE)


@pytest.mark.parametrize("vector", TABLE, ids=lambda vector: vector.name)
async def test_a_bad_call_is_refused_by_name_and_the_next_good_one_is_served(vector, channel, client, good_answer):
    error = await _refused(channel, vector)
    assert error.code() is vector.code, error.details()
    for word in vector.words:
        assert word in error.details()
    assert await _good(client) == good_answer


async def _refused(channel, vector: Vector) -> grpc.aio.AioRpcError:
    path = f"/hope.v1.{vector.method}"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        if vector.method in STREAMS:
            await channel.unary_stream(path)(vector.raw, timeout=10).read()
        else:
            await channel.unary_unary(path)(vector.raw, timeout=10)
    return refused.value


async def _good(client: AsyncHopeClient):
    """What a good call is answered with, and where the memory stands: the same before and after every bad one."""
    whole = await client.generate("My dog", user_id="ann", sampling=GOOD)
    memory = await client.get_memory("ann")
    return whole.started.memory_version, whole.choices[0].token_ids, memory.version, memory.state_digest
