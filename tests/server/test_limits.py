"""Admission, deadlines, cancellation, sizes, slow readers."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request

import grpc
import pytest
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.errors import DeadlineExceeded, Exhausted
from hope_serve.pb.hope.v1 import inference_pb2
from hope_serve.pb.hope.v1.inference_pb2_grpc import InferenceServiceStub

LONG = SamplingParams(max_tokens=2**20, ignore_eos=True)
SHORT = SamplingParams(max_tokens=2, ignore_eos=True)


async def test_too_many_calls_are_refused_and_health_checks_never_are(open_server):
    async with open_server(max_concurrent_calls=2) as server, connect(server) as client:
        streams = [client.stream("tea", sampling=LONG) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(Exhausted, match="max_concurrent_calls 2") as refused:
            await client.generate("tea", sampling=SHORT)
        assert refused.value.reason == "CONCURRENCY"
        assert refused.value.retry_after > 0
        assert await client.is_serving()
        assert await client.is_serving("")
        for stream in streams:
            await stream.aclose()
        await _eventually(lambda: client.generate("tea", sampling=SHORT))


async def test_a_full_queue_is_refused_with_a_time_to_come_back(open_server):
    async with open_server(max_slots=1, max_queue_tokens=64) as server, connect(server) as client:
        running = client.stream("tea", sampling=LONG)
        for _ in range(2):
            await anext(running)
        waiting = asyncio.create_task(client.generate([20] * 40, sampling=SHORT))
        await _eventually_true(lambda: _queued(server) > 0)
        with pytest.raises(Exhausted) as refused:
            await client.generate([20] * 40, sampling=SHORT)
        assert refused.value.reason == "QUEUE_FULL"
        assert refused.value.retry_after > 0
        await running.aclose()
        await waiting


async def test_a_deadline_ends_a_generation_and_is_never_called_length(client):
    async with asyncio.timeout(20):
        with pytest.raises(DeadlineExceeded):
            await client.generate("tea", sampling=LONG, timeout_seconds=1.0)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once_with_the_estimate(open_server):
    """Until a rate was measured, the engine reckons with 1,000 tokens a second."""
    async with open_server(max_prompt_tokens=8000) as server, connect(server) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as refused:
            await client.generate([20] * 8000, sampling=SHORT, timeout_seconds=7.8)
        assert time.monotonic() - began < 5
    assert refused.value.reason == "DEADLINE_TOO_SHORT"
    assert float(refused.value.details["estimate_seconds"]) >= 7.8


async def test_a_cancelled_stream_frees_its_slot(open_server):
    async with open_server(max_slots=1) as server, connect(server) as client:
        stream = client.stream("tea", sampling=LONG)
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(20):
            await client.generate("tea", sampling=SHORT)


async def test_a_message_over_the_limit_is_refused_and_the_server_goes_on(open_server):
    async with open_server(max_message_bytes=4096) as server, connect(server) as client:
        with pytest.raises(Exhausted, match="4096"):
            await client.generate("x" * 5000, sampling=SHORT)
        await client.generate("x" * 500, sampling=SHORT)


async def test_a_reader_that_stops_reading_loses_its_stream_and_frees_its_slot(open_server):
    """Logprobs make the messages large, so that the little that a client's window holds is soon full."""
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16_384)]
    async with open_server(max_slots=1, write_timeout_seconds=0.3) as server, connect(server) as client:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options) as narrow:
            sampling = inference_pb2.SamplingParams(max_tokens=100_000, ignore_eos=True, logprobs=20)
            request = inference_pb2.GenerateStreamRequest(
                request=inference_pb2.GenerateRequest(text="tea", sampling=sampling)
            )
            call = InferenceServiceStub(narrow).GenerateStream(request)
            await call.read()
            assert server.service.ready
            async with asyncio.timeout(20):
                await client.generate("tea", sampling=SHORT)  # the only slot is free again
            with pytest.raises(grpc.aio.AioRpcError) as lost:
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert lost.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "write_timeout_seconds" in lost.value.details()


async def _eventually(call):
    async with asyncio.timeout(5):
        while True:
            try:
                return await call()
            except Exhausted:
                await asyncio.sleep(0.02)


async def _eventually_true(condition):
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true")


def _queued(server) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as reply:
        return float(re.search(r"^hope_requests_waiting (\S+)", reply.read().decode(), re.MULTILINE)[1])
