"""The client's side of a trace: a span for every call, whose ids travel with it (W3C ``traceparent``).

Spans go where the calling program's OpenTelemetry sends them; without one configured, nothing is recorded or sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, StatusCode

from hope_serve.errors import HopeError


@contextmanager
def client_span(method: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """The span of a call of ``method``; yields the metadata that tells the server of it."""
    span = trace.get_tracer("hope_serve.client").start_span(
        f"hope {method}", kind=SpanKind.CLIENT, attributes={"rpc.system": "grpc", "rpc.method": method}
    )
    headers: dict[str, str] = {}
    propagate.inject(headers, context=trace.set_span_in_context(span))
    try:
        yield tuple(headers.items())
    except HopeError as error:
        span.set_status(StatusCode.ERROR, error.reason)
        raise
    finally:
        span.end()
