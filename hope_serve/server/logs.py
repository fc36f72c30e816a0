"""Log lines, as text for people or as JSON for machines: with the ids of the call they belong to, never its text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from google.protobuf.message import Message as Pb
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, bound_contextvars
from structlog.typing import EventDict, Processor

from hope_serve.config import ServerConfig

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logs(config: ServerConfig) -> None:
    """Let everything that is logged appear on standard error, in ``config.log_format``."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(TEXT) if config.log_format == "text" else _json_formatter())
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler])


@contextmanager
def logging_call(method: str, correlation_id: str) -> Iterator[None]:
    """What is logged inside, and by tasks begun inside, carries the call's ids."""
    with bound_contextvars(method=method, correlation_id=correlation_id):
        yield


def note_request(request: Pb) -> None:
    """From now on, the lines of this call carry the request id that its caller chose, if there is one."""
    inner: Pb = getattr(request, "request", request)
    if request_id := getattr(inner, "request_id", ""):
        bind_contextvars(request_id=request_id)


def _json_formatter() -> logging.Formatter:
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )


def _add_trace_ids(_logger: object, _method: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event
