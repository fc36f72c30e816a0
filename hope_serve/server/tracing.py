"""Traces for whoever collects OTLP: a call, its stages, and what it asked of the store. Never a user's id or text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from google.protobuf.message import Message as Pb
from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hope_serve.config import ConfigError, TracingConfig
from hope_serve.server.stages import OPERATIONS, facts_of, stages_of

Metadata = tuple[tuple[str, str | bytes], ...]
SEND_SECONDS = 2.0
"""What a collector does not take within it is lost: one that hangs does not hold up a restart."""


class TracedCall:
    """One call under way, and when it began to commit."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.commit_at: int | None = None

    def end(self, code: str, number: int, last_reply: Pb | None) -> None:
        """How it ended; its stages become spans of their own, by the times that the reply tells."""
        self._span.set_attributes({"rpc.grpc.status_code": number, **facts_of(last_reply)})
        if code != "OK":
            self._span.set_status(StatusCode.ERROR, code)
        end = self.commit_at or time.time_ns()
        for name, seconds in reversed(stages_of(last_reply)):
            start = end - round(seconds * 1e9)
            self._tracer.start_span(name, start_time=start).end(end)
            end = start


class Tracing:
    """Spans of one server. ``facts`` are attributes of every call, such as the model's name."""

    def __init__(self, tracer: Tracer, facts: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._facts = facts
        self._call: ContextVar[TracedCall | None] = ContextVar("call", default=None)

    @contextmanager
    def serving(self, path: str, metadata: Metadata) -> Iterator[TracedCall]:
        """The span of a call to ``path``, below the caller's span if ``metadata`` names one."""
        service, _, method = path.strip("/").rpartition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, **self._facts}
        if method in OPERATIONS:
            attributes["gen_ai.operation.name"] = OPERATIONS[method]
        parent = TraceContextTextMapPropagator().extract({k: v for k, v in metadata if isinstance(v, str)})
        with self._tracer.start_as_current_span(
            path.strip("/"), context=parent, kind=SpanKind.SERVER, attributes=attributes, record_exception=False,
            set_status_on_exception=False,
        ) as span:  # fmt: skip
            call = TracedCall(self._tracer, span)
            token = self._call.set(call)
            try:
                yield call
            finally:
                self._call.reset(token)

    def storing(self, op: str) -> AbstractContextManager[Any]:
        """The span of a store operation that a call asked for; nothing for the server's own."""
        call = self._call.get()
        if call is None:
            return nullcontext()
        if op == "commit":
            call.commit_at = time.time_ns()
        return self._tracer.start_as_current_span(op if op == "commit" else f"store {op}", record_exception=False)


@asynccontextmanager
async def opened_tracing(config: TracingConfig, *, release: str, model: str, store: str) -> AsyncIterator[Tracing]:
    """Tracing to ``config.endpoint``, or none; leaving sends what is left.

    Raises:
        ConfigError: the packages that send spans are not installed.
    """
    facts = {"gen_ai.provider.name": "hope_serve", "gen_ai.request.model": model, "gen_ai.memory.store.id": store}
    if not config.endpoint:
        yield Tracing(NoOpTracer(), facts)
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise ConfigError(
            f"tracing.endpoint is set, but {error.name} is not there: pip install hope-serve[otel]"
        ) from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": "hope-serve", "service.version": release}),
        sampler=ParentBasedTraceIdRatio(config.sample_share),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(
        endpoint=config.endpoint, insecure=config.endpoint.startswith("http://"), timeout=SEND_SECONDS
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield Tracing(provider.get_tracer("hope_serve.server", release), facts)
    finally:
        await asyncio.to_thread(provider.force_flush, round(SEND_SECONDS * 1000))
        await asyncio.to_thread(provider.shutdown)
