"""Adapt: what to learn, and what was learned."""

from __future__ import annotations

from collections.abc import Iterable

from hope_serve.api import (
    AdaptMetrics,
    AdaptMode,
    AdaptOptions,
    AdaptResult,
    Durability,
    LevelReport,
    Source,
    Timings,
)
from hope_serve.pb.hope.v1 import adaptation_pb2, content_pb2
from hope_serve.wire.calls import AdaptCall
from hope_serve.wire.content import read_content, write_content
from hope_serve.wire.enums import ADAPT_MODE, DURABILITY
from hope_serve.wire.plain import read_plain, write_plain
from hope_serve.wire.timestamps import read_time, write_time


def write_adapt(call: AdaptCall) -> adaptation_pb2.AdaptRequest:
    """The request's message."""
    message = adaptation_pb2.AdaptRequest(
        options=write_options(call.options), source=write_source(call.source), **write_content(call.input)
    )
    return write_plain(message, call)


def read_adapt(message: adaptation_pb2.AdaptRequest) -> AdaptCall:
    """The request; raises InvalidRequest."""
    options = read_options(message.options)
    return AdaptCall(
        input=read_content(message, "input"),
        options=options,
        source=read_source(message.source),
        **read_plain(message),
    )


def write_adapted(result: AdaptResult) -> adaptation_pb2.AdaptResponse:
    """The reply's message."""
    metrics = adaptation_pb2.AdaptMetrics(levels=write_levels(result.metrics.levels))
    message = adaptation_pb2.AdaptResponse(
        durability=DURABILITY.write(result.durability),
        metrics=write_plain(metrics, result.metrics),
        timings=write_plain(content_pb2.Timings(), result.timings),
    )
    return write_plain(message, result)


def read_adapted(message: adaptation_pb2.AdaptResponse) -> AdaptResult:
    """The reply."""
    return AdaptResult(
        durability=DURABILITY.read(message.durability, "durability") or Durability.VOLATILE,
        metrics=AdaptMetrics(levels=read_levels(message.metrics.levels), **read_plain(message.metrics)),
        timings=Timings(**read_plain(message.timings)),
        **read_plain(message),
    )


def write_options(options: AdaptOptions) -> adaptation_pb2.AdaptOptions:
    """How to learn, as a message."""
    return write_plain(adaptation_pb2.AdaptOptions(mode=ADAPT_MODE.write(options.mode)), options)


def read_options(message: adaptation_pb2.AdaptOptions) -> AdaptOptions:
    """How to learn; raises InvalidRequest."""
    mode = ADAPT_MODE.read(message.mode, "options.mode") or AdaptMode.COMMIT
    return AdaptOptions(mode=mode, **read_plain(message))


def write_levels(levels: Iterable[LevelReport]) -> list[adaptation_pb2.LevelState]:
    """Every level's message."""
    return [write_plain(adaptation_pb2.LevelState(), level) for level in levels]


def read_levels(messages: Iterable[adaptation_pb2.LevelState]) -> tuple[LevelReport, ...]:
    """Every level."""
    return tuple(LevelReport(**read_plain(message)) for message in messages)


def write_source(source: Source) -> adaptation_pb2.Source:
    """Where a text came from, as a message."""
    return write_plain(adaptation_pb2.Source(time=write_time(source.time)), source)


def read_source(message: adaptation_pb2.Source) -> Source:
    """Where a text came from; raises InvalidRequest."""
    return Source(time=read_time(message.time), **read_plain(message))
