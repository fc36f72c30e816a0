"""Traces from the client's call to the store's commit, at a real collector; and none of a user's words in them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from itertools import pairwise

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from support.every_rpc import CALLS, PASSPHRASE, outcomes
from support.otlp import Collector, attributes
from support.server_running import connect, server_config

from hope_serve.api import SamplingParams
from hope_serve.client import spans as client_spans
from hope_serve.config import ConfigError, TracingConfig
from hope_serve.errors import NotFound
from hope_serve.server.serve import running
from hope_serve.server.tracing import opened_tracing

SHORT = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
SECRET = "Wolpertinger"
ADAPT, ADAPT_STREAM, GENERATE, STREAM, GET = (
    "hope.v1.AdaptationService/Adapt",
    "hope.v1.AdaptationService/AdaptStream",
    "hope.v1.InferenceService/Generate",
    "hope.v1.InferenceService/GenerateStream",
    "hope.v1.MemoryService/GetMemory",
)


@pytest.fixture
async def collector():
    async with Collector() as started:
        yield started


@pytest.fixture
async def traced(collector, checkpoint_folder, tmp_path, monkeypatch):
    """What the collector has after a client that traces made some calls to a server that traces."""
    config = _traced(server_config(checkpoint_folder, tmp_path), endpoint=collector.endpoint)
    async with _client_spans(collector, monkeypatch), running(config) as server, connect(server) as client:
        await client.adapt(f"user-{SECRET}", f"My pet is called {SECRET}. " * 8, request_id="lesson")
        await client.generate(f"My {SECRET}", user_id=f"user-{SECRET}", sampling=SHORT)
        _ = [event async for event in client.stream("My pet", sampling=SHORT)]
        await client.adapt_stream(f"user-{SECRET}", [f"{SECRET} eats. " * 4, f"{SECRET} sleeps. " * 4])
        with pytest.raises(NotFound):
            await client.get_memory("nobody")
    return collector


@asynccontextmanager
async def _client_spans(collector, monkeypatch):
    """Inside, clients send their spans; outside, all have come."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector.endpoint, insecure=True)))
    monkeypatch.setattr(client_spans.trace, "get_tracer", provider.get_tracer)
    yield
    await asyncio.to_thread(provider.shutdown)


async def test_every_call_has_a_span_of_its_name_on_both_sides(collector, checkpoint_folder, tmp_path, monkeypatch):
    config = _traced(server_config(checkpoint_folder, tmp_path), endpoint=collector.endpoint)
    async with _client_spans(collector, monkeypatch), running(config) as server, connect(server) as client:
        for _ in range(2):
            await client.adapt("ann", "My dog is called Biscuit.")
        client.exported = b"".join([piece async for piece in client.export_memory("ann", passphrase=PASSPHRASE)])
        await outcomes(client, "ann")
    asked = {span.name.removeprefix("hope "): span for span in collector.spans if span.name.startswith("hope ")}
    assert asked.keys() == CALLS.keys()
    for name, span in asked.items():
        [answer] = [other for other in collector.spans if other.parent_span_id == span.span_id]
        assert answer.name.endswith(f"Service/{name}")
        assert attributes(span)["rpc.method"] == attributes(answer)["rpc.method"] == name


@pytest.mark.parametrize(("client", "server"), [("hope Adapt", ADAPT), ("hope GetMemory", GET)])
async def test_a_server_goes_on_with_the_trace_of_its_caller(traced, client, server):
    asked, answered = traced.named(client), traced.named(server)
    assert answered.trace_id == asked.trace_id
    assert answered.parent_span_id == asked.span_id
    assert asked.start_time_unix_nano <= answered.start_time_unix_nano <= asked.end_time_unix_nano


async def test_a_generation_shows_where_its_time_went(traced):
    call = traced.named(GENERATE)
    stages = [name for name in traced.below(call) if not name.startswith("store")]
    assert stages == ["restore", "queue", "prefill", "decode"]
    assert "store head" in traced.below(call)
    assert attributes(call).items() >= {
        ("gen_ai.operation.name", "text_completion"),
        ("gen_ai.request.model", "hope-tiny"),
        ("gen_ai.usage.output_tokens", 4),
        ("rpc.grpc.status_code", 0),
    }
    parts = [span for span in traced.spans if span.parent_span_id == call.span_id and span.name in stages]
    assert all(first.end_time_unix_nano == then.start_time_unix_nano for first, then in pairwise(parts))
    assert parts[-1].end_time_unix_nano <= call.end_time_unix_nano


async def test_a_stream_shows_its_stages_as_well(traced):
    assert [name for name in traced.below(traced.named(STREAM)) if "store" not in name][-2:] == ["prefill", "decode"]


async def test_a_lesson_comes_before_its_commit(traced):
    call = traced.named(ADAPT)
    stages = [name for name in traced.below(call) if not name.startswith("store")]
    assert stages == ["queue", "lesson", "commit"]
    assert attributes(call)["gen_ai.operation.name"] == "upsert_memory"
    assert attributes(call)["gen_ai.memory.store.id"].endswith("memory.db")
    assert attributes(call)["hope.memory.version"] == 1


async def test_a_streamed_history_comes_before_its_commit(traced):
    call = traced.named(ADAPT_STREAM)
    assert [name for name in traced.below(call) if not name.startswith("store")] == ["queue", "lesson", "commit"]
    assert attributes(call).items() >= {("gen_ai.operation.name", "upsert_memory"), ("hope.memory.version", 2)}


async def test_a_refusal_is_an_error_on_both_sides(traced):
    for name in (GET, "hope GetMemory"):
        assert traced.named(name).status.code == 2
    assert traced.named(GET).status.message == "NOT_FOUND"


async def test_nobody_and_nothing_that_was_said_is_in_a_trace(traced):
    assert len(traced.spans) > 12
    assert not any(SECRET in str(span) for span in traced.spans)


async def test_a_server_that_was_told_no_endpoint_sends_nothing(collector, checkpoint_folder, tmp_path):
    async with running(server_config(checkpoint_folder, tmp_path)) as server, connect(server) as client:
        await client.generate("tea", sampling=SHORT)
    assert collector.spans == []


async def test_a_sample_share_of_none_sends_nothing(collector, checkpoint_folder, tmp_path):
    config = _traced(server_config(checkpoint_folder, tmp_path), endpoint=collector.endpoint, sample_share=0.0)
    async with running(config) as server, connect(server) as client:
        await client.generate("tea", sampling=SHORT)
    assert collector.spans == []


async def test_a_collector_that_is_not_there_holds_nothing_up():
    async with asyncio.timeout(10):
        config = TracingConfig(endpoint="http://127.0.0.1:1")
        async with opened_tracing(config, release="1", model="m", store="s") as tracing:
            with tracing.serving("/a/B", ()) as call:
                call.end("OK", 0, None)


def test_tracing_without_its_packages_says_what_to_install():
    code = (
        "import asyncio, sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from hope_serve.config import ConfigError, TracingConfig\n"
        "from hope_serve.server.tracing import opened_tracing\n"
        "try:\n"
        "    opened = opened_tracing(TracingConfig(endpoint='http://x:1'), release='', model='', store='')\n"
        "    asyncio.run(opened.__aenter__())\n"
        "except ConfigError as error:\n"
        "    sys.exit('hope-serve[otel]' not in str(error))\n"
        "sys.exit(2)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_endpoint_without_a_scheme_is_refused():
    with pytest.raises(ValueError, match="http://host:port"):
        TracingConfig(endpoint="collector:4317")
    assert issubclass(ConfigError, ValueError)
    assert trace.get_current_span().get_span_context().is_valid is False


def _traced(config, **settings):
    return msgspec.structs.replace(config, tracing=TracingConfig(**settings))
