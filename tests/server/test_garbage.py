"""What a call leaves behind is freed when it ends, and does not wait until the process is searched for garbage."""

from __future__ import annotations

import contextlib
import gc

import grpc
import pytest
import torch
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.errors import HopeError, InvalidRequest
from hope_serve.pb.hope.v1 import content_pb2, inference_pb2
from hope_serve.wire.calls import ScoreCall

SHORT = SamplingParams(max_tokens=6, temperature=0.0)
TEXT = "the sea is wide and the ships are old "


async def adapt(client, number):
    await client.adapt("ann", TEXT * 5, request_id=f"r{number}")


async def generate(client, number):
    await client.generate(f"tea {number}", user_id="ann", sampling=SHORT)


async def stream(client, number):
    async for _ in client.stream(f"tea {number}", user_id="ann", sampling=SHORT):
        pass


async def score(client, number):
    await client.score(f"tea {number}", [[20] * 9] * 3, user_id="ann")


async def stale(client, number):
    with contextlib.suppress(HopeError):
        await client.adapt("ann", TEXT, request_id=f"s{number}", expected_version=10**6)


@pytest.fixture
def no_collection():
    """Nothing is collected but on request, and what is collected then stays in ``gc.garbage`` to be looked at."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("call", [adapt, generate, stream, score, stale])
async def test_no_tensor_is_left_in_a_circle(server, no_collection, call):
    async with connect(server) as client:
        await adapt(client, -1)
        for number in range(5):
            await call(client, number)
        gc.collect()
        left = [each for each in gc.garbage if isinstance(each, torch.Tensor)]
        assert len(left) == 0


@pytest.mark.parametrize("ids", [[10**6] * 20, [10**6] * 20_000], ids=["read at once", "read by a worker"])
async def test_a_refused_call_leaves_nothing_of_its_message(channel, no_collection, ids):
    parts = [inference_pb2.Continuation(token_ids=content_pb2.TokenIds(ids=ids))] * 3
    raw = inference_pb2.ScoreRequest(text="tea", continuations=parts).SerializeToString()
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/hope.v1.InferenceService/Score")(raw)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    gc.collect()
    kinds = (inference_pb2.ScoreRequest, ScoreCall, InvalidRequest)
    assert [type(each).__name__ for each in gc.garbage if isinstance(each, kinds)] == []
