"""The clients: what they need, what they retry, how they iterate."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading

import grpc
import pytest

from hope_serve.api import Delta, Ended, SamplingParams, Started
from hope_serve.client import AsyncHopeClient, HopeClient, Message
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import Exhausted, HopeError, InvalidRequest, NotFound, Unavailable
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2
from hope_serve.wire.status import trailers, write_status

SHORT = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


def test_the_clients_need_no_torch():
    code = "import sys, hope_serve.client; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_blocking_client_has_every_call_of_the_other():
    calls = {name for name, _ in inspect.getmembers(AsyncHopeClient, inspect.isfunction) if name[0] != "_"}
    assert calls <= vars(HopeClient).keys()
    assert "import_memory" in calls


async def test_the_blocking_client_does_what_the_other_does(server):
    await asyncio.to_thread(_use_blocking, f"127.0.0.1:{server.port}")


async def test_leaving_a_blocking_stream_cancels_its_call(server):
    def leave():
        with HopeClient(f"127.0.0.1:{server.port}") as client:
            for event in client.stream("tea", sampling=SamplingParams(max_tokens=100_000, ignore_eos=True)):
                if isinstance(event, Delta):
                    break

    await asyncio.to_thread(leave)
    async with AsyncHopeClient(f"127.0.0.1:{server.port}") as client:
        await asyncio.gather(*(client.generate("tea", sampling=SHORT) for _ in range(8)))


async def test_a_client_closes_without_a_trace(server):
    """A thread that stays behind for every client would be ``uses`` of them; pools, gRPC's own too, may still grow."""
    uses = 8
    await asyncio.to_thread(_use_blocking, f"127.0.0.1:{server.port}")
    before = threading.active_count()
    for _ in range(uses):
        await asyncio.to_thread(_use_blocking, f"127.0.0.1:{server.port}")
        assert "hope-client" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() < before + uses


async def test_nobody_there_is_unavailable_and_names_the_target():
    async with AsyncHopeClient("127.0.0.1:1", ChannelOptions(retries=False)) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await client.get_model()


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.generate([]),
        lambda c: c.generate([Message(role="wizard", text="hi")]),
        lambda c: c.generate([2**40]),
        lambda c: c.adapt("ann", ["not a token"]),
        lambda c: c.get_memory("ann", version="new"),
        lambda c: c.detokenize([1.5]),
        lambda c: c.rollback_memory("ann", 2**70),
    ],
    ids=range(7),
)
async def test_what_does_not_fit_the_wire_is_an_invalid_request(server, call):
    async with AsyncHopeClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(InvalidRequest):
            await call(client)


class Flaky:
    """A server that refuses as often as it was told to, and then answers. Not ours: it is the client that is tested."""

    def __init__(self, error: HopeError, times: int) -> None:
        self._error, self._left = error, times
        self.request_ids: list[str] = []

    async def answer(self, request, context):
        self.request_ids.append(request.request_id)
        if self._left:
            self._left -= 1
            status = write_status(self._error, "id")
            code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
            await context.abort(code, status.message, trailers(status, self._error))
        return adaptation_pb2.AdaptResponse(version=1) if "Adapt" in str(type(request)) else _nothing_said()


@pytest.fixture
async def flaky():
    servers = []

    async def start(error: HopeError, times: int):
        fake = Flaky(error, times)
        server = grpc.aio.server()
        for service, method, kind in (
            ("AdaptationService", "Adapt", adaptation_pb2.AdaptRequest),
            ("InferenceService", "Generate", inference_pb2.GenerateRequest),
        ):
            handler = grpc.unary_unary_rpc_method_handler(fake.answer, kind.FromString, lambda r: r.SerializeToString())
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"hope.v1.{service}", {method: handler}),)
            )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return fake, AsyncHopeClient(f"127.0.0.1:{port}")

    yield start
    for server in servers:
        await server.stop(0)


async def test_an_adapt_is_retried_under_one_request_id(flaky):
    fake, client = await flaky(Unavailable("outcome unknown"), 2)
    async with client:
        assert (await client.adapt("ann", "hi")).version == 1
    assert len(fake.request_ids) == 3
    assert len(set(fake.request_ids)) == 1


async def test_a_generation_is_repeated_only_when_it_was_refused_for_want_of_room(flaky):
    fake, client = await flaky(Exhausted("full", retry_after=0.05), 2)
    async with client:
        await client.generate("hi")
    assert len(fake.request_ids) == 3
    fake, client = await flaky(Unavailable("who knows"), 1)
    async with client:
        with pytest.raises(Unavailable):
            await client.generate("hi")
    assert len(fake.request_ids) == 1


async def test_a_retry_waits_as_long_as_the_server_says(flaky):
    _, client = await flaky(Exhausted("full", retry_after=0.6), 1)
    async with client:
        began = asyncio.get_running_loop().time()
        await client.adapt("ann", "hi")
        assert asyncio.get_running_loop().time() - began >= 0.6


async def test_a_client_can_wait_for_a_server_that_is_still_starting(server):
    """Waiting is opt-in: without it, an absent server is an answer of its own."""
    options = ChannelOptions(wait_for_ready=True, timeout_seconds=0.5)
    async with AsyncHopeClient("127.0.0.1:1", options) as client:
        with pytest.raises(HopeError) as waited:
            await client.get_model()
    assert waited.value.reason == "DEADLINE_EXCEEDED"


def _use_blocking(target: str) -> None:
    with HopeClient(target) as client:
        assert client.get_model().name == "hope-tiny"
        events = list(client.stream("My dog", sampling=SHORT))
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Ended)
        assert client.generate("My dog", sampling=SHORT).choices[0].ended.usage.completion_tokens == 4
        assert client.adapt("ann", "My dog is called Biscuit.").version >= 1
        assert [line.user for line in client.list_memories()] == ["ann"]
        with pytest.raises(NotFound):
            client.get_memory("nobody")
        assert client.is_serving()


def _nothing_said() -> inference_pb2.GenerateResponse:
    return inference_pb2.GenerateResponse(memory_version=0)
