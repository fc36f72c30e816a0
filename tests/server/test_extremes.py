"""Numbers at the ends of their ranges, alone and in pairs, to every RPC: after each, another call is served as before.

What such a call may be answered with is its own affair, but never a fault of ours and never what is not a number.
"""

from __future__ import annotations

import math

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message import Message as Pb
from support.server_extremes import LIMIT, VOCAB, history, kinds
from support.server_running import connect, server_config

from hope_serve.api import SamplingParams
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2, memory_pb2
from hope_serve.server.serve import running

SEED = 12
GREEDY = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
STREAMS = ("GenerateStream", "ExportMemory")
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS}
SERVICES = {
    service.name: service
    for module in (inference_pb2, adaptation_pb2, memory_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(checkpoint_folder, tmp_path_factory):
    config = server_config(
        checkpoint_folder,
        tmp_path_factory.mktemp("extremes"),
        max_prompt_tokens=LIMIT,
        max_adapt_tokens=LIMIT,
        max_slots=8,
        keep_versions=1000,
    )
    async with running(config) as started, connect(started) as client:
        assert started.service.info.vocab_size == VOCAB
        await client.adapt("ann", "My dog is called Biscuit.", request_id="known")
        await client.adapt("zoe", "I like tea without sugar.", request_id="known")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def innocent(server):
    """``await innocent()`` is what a greedy call that bothers nobody is answered with."""
    async with connect(server) as client:

        async def ask():
            whole = await client.generate("My dog", user_id="ann", sampling=GREEDY)
            return whole.started.memory_version, whole.choices[0].token_ids, whole.choices[0].text

        yield ask


async def test_every_method_is_asked():
    methods = {f"{name}/{method.name}" for name, service in SERVICES.items() for method in service.methods}
    assert methods - {kind.method for kind in kinds()} == {"MemoryService/ImportMemory"}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.method)
@pytest.mark.parametrize("share", [0.2, pytest.param(1.0, marks=[pytest.mark.nightly, pytest.mark.timeout(600)])])
async def test_extremes_are_answered_with_numbers_and_the_next_call_as_before(server, innocent, kind, share):
    before, served = await innocent(), []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for name, message in kind.messages(SEED, share):
            code, replies = await _asked(channel, kind.method, message)
            assert code not in FAULTS, (name, code)
            served.append(code is grpc.StatusCode.OK)
            assert all(math.isfinite(number) for reply in replies for number in _numbers(reply)), name
            assert await innocent() == before, name
    assert served[0]
    assert sum(served) > len(served) / 5


async def _asked(channel, method: str, message: Pb) -> tuple[grpc.StatusCode, list[Pb]]:
    service, _, name = method.partition("/")
    reply_class = _class(SERVICES[service].methods_by_name[name].output_type)
    path = f"/hope.v1.{method}"
    try:
        if name in STREAMS:
            call = channel.unary_stream(path, type(message).SerializeToString, reply_class.FromString)
            return grpc.StatusCode.OK, [reply async for reply in call(message, timeout=20)]
        if name == "AdaptStream":
            call = channel.stream_unary(
                path, adaptation_pb2.AdaptStreamRequest.SerializeToString, reply_class.FromString
            )
            return grpc.StatusCode.OK, [await call(history(message), timeout=20)]
        call = channel.unary_unary(path, type(message).SerializeToString, reply_class.FromString)
        return grpc.StatusCode.OK, [await call(message, timeout=20)]
    except grpc.aio.AioRpcError as error:
        return error.code(), []


def _class(descriptor) -> type[Pb]:
    modules = (inference_pb2, adaptation_pb2, memory_pb2)
    return next(getattr(module, descriptor.name) for module in modules if hasattr(module, descriptor.name))


def _numbers(message: Pb):
    """Every floating-point number of a reply."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is not None:
            for part in values:
                yield from _numbers(part)
        elif field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
            yield from values
