"""What a reply tells about its call, as spans and attributes: stages, tokens, versions."""

from __future__ import annotations

from types import MappingProxyType

from google.protobuf.message import Message as Pb

from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2

OPERATIONS = MappingProxyType(
    {
        "Generate": "text_completion",
        "GenerateStream": "text_completion",
        "Adapt": "upsert_memory",
        "AdaptStream": "upsert_memory",
        "GetMemory": "search_memory",
        "DeleteMemory": "delete_memory",
    }
)
"""A method as OpenTelemetry's conventions for generative AI name such operations (v0.1.0)."""

Stages = list[tuple[str, float]]
"""Names and seconds, in the order in which they follow each other."""


def stages_of(reply: Pb | None) -> Stages:
    """Where the call's time went; empty for calls that do not tell."""
    reply = _lesson(reply)
    if isinstance(reply, adaptation_pb2.AdaptResponse):
        if reply.duplicate:  # the times are those of the first time
            return []
        spent = reply.timings
        return [("queue", spent.queue_seconds), ("lesson", spent.prefill_seconds + spent.decode_seconds)]
    ended = _ended(reply)
    if ended is None:
        return []
    spent = ended.timings
    return [
        ("restore", spent.restore_seconds),
        ("queue", spent.queue_seconds),
        ("prefill", spent.prefill_seconds),
        ("decode", spent.decode_seconds),
    ]


def facts_of(reply: Pb | None) -> dict[str, int]:
    """Attributes of the call's span."""
    reply = _lesson(reply)
    if isinstance(reply, adaptation_pb2.AdaptResponse):
        return {"gen_ai.usage.input_tokens": reply.metrics.tokens_given, "hope.memory.version": reply.version}
    ended = _ended(reply)
    if ended is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": ended.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": ended.usage.completion_tokens,
    }


def _lesson(reply: Pb | None) -> Pb | None:
    """A history's result is one of an Adapt."""
    return reply.result if isinstance(reply, adaptation_pb2.AdaptStreamResponse) else reply


def _ended(reply: Pb | None) -> inference_pb2.Choice | inference_pb2.Ended | None:
    if isinstance(reply, inference_pb2.GenerateResponse) and reply.choices:
        return reply.choices[0]
    if isinstance(reply, inference_pb2.GenerateStreamResponse) and reply.HasField("ended"):
        return reply.ended
    return None
