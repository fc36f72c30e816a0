"""A collector of traces: takes OTLP over gRPC, as any other does, and shows what came."""

from __future__ import annotations

import asyncio
from typing import Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """``spans``: all that came, in the order of their beginnings."""

    def __init__(self):
        self._server = grpc.aio.server()
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._spans = []

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def Export(self, request, context):  # noqa: N802  the contract names it
        await asyncio.sleep(0)
        self._spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self):
        return sorted(self._spans, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))

    def named(self, name):
        """The only span of that name."""
        [found] = [span for span in self._spans if span.name == name]
        return found

    def below(self, parent):
        """Names of the spans whose parent it is, in the order of their beginnings."""
        return [span.name for span in self.spans if span.parent_span_id == parent.span_id]


def attributes(span):
    """Attributes as plain values."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
