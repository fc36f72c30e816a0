"""The asyncio client: every RPC once, in and out as the project's nouns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Unpack
from uuid import uuid4

from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from hope_serve.api import (
    AdaptOptions,
    AdaptResult,
    AdaptStreamResult,
    GenerateEvent,
    Generation,
    Learn,
    MemoryChoice,
    Message,
    ModelInfo,
    SamplingParams,
    ScoreResult,
    Source,
)
from hope_serve.client.channel import ChannelOptions
from hope_serve.client.connection import CallFields, encoded
from hope_serve.client.memories import MemoryCalls
from hope_serve.client.uploads import Parts, digested, part_requests, reply_to
from hope_serve.pb.hope.v1 import inference_pb2
from hope_serve.pb.hope.v1.adaptation_pb2_grpc import AdaptationServiceStub
from hope_serve.pb.hope.v1.inference_pb2_grpc import InferenceServiceStub
from hope_serve.wire import adaptation, generate, score
from hope_serve.wire.calls import AdaptCall, GenerateCall, ScoreCall
from hope_serve.wire.content import Content, write_content
from hope_serve.wire.parts import AdaptStartCall, read_streamed, write_start


class GenerateFields(CallFields, total=False):
    """Of a generation; see ``GenerateCall``. A request id is made when none is given."""

    user_id: str
    sampling: SamplingParams
    memory: MemoryChoice
    session_id: str
    learn: Learn | None
    request_id: str
    priority: int


class ScoreFields(CallFields, total=False):
    """Of a Score; see ``ScoreCall``."""

    user_id: str
    memory: MemoryChoice


class AdaptFields(CallFields, total=False):
    """Of an Adapt; see ``AdaptCall``. A request id is made when none is given."""

    request_id: str
    expected_version: int | None
    options: AdaptOptions
    source: Source


class AdaptStreamFields(AdaptFields, total=False):
    """Of an AdaptStream; see ``AdaptStartCall``. ``payload_digest``: as ``parts_digest`` gives it."""

    payload_digest: str


class AsyncHopeClient(MemoryCalls):
    """A connection to one server. Every call raises ``HopeError``; ``async with`` closes it."""

    def __init__(self, target: str = "", options: ChannelOptions | None = None) -> None:
        """``target``: host:port; empty is HOPE_TARGET or 127.0.0.1:50051."""
        super().__init__(target, options)
        self._inference = InferenceServiceStub(self._channel)
        self._adaptation = AdaptationServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def generate(self, prompt: Content, **fields: Unpack[GenerateFields]) -> Generation:
        """Continue ``prompt`` and return the complete answers."""
        request = _generate_request(prompt, fields)
        return generate.read_generation(await self._call(self._inference.Generate, request, fields))

    async def stream(self, prompt: Content, **fields: Unpack[GenerateFields]) -> AsyncIterator[GenerateEvent]:
        """Continue ``prompt``: Started, then Deltas, then one Ended a choice. Closing the iterator cancels the call."""
        request = inference_pb2.GenerateStreamRequest(request=_generate_request(prompt, fields))
        with self._sending(request.request, fields, "GenerateStream") as sent_with:
            call = self._inference.GenerateStream(request, **sent_with)
            try:
                async for message in call:
                    yield generate.read_event(message)
            finally:
                call.cancel()

    async def score(
        self, prompt: Content, continuations: Sequence[str | Sequence[int]], **fields: Unpack[ScoreFields]
    ) -> tuple[ScoreResult, ...]:
        """Log-likelihood of every continuation after ``prompt``."""
        given = _without_timeout(fields)
        request = encoded(lambda: score.write_score(ScoreCall(prompt=prompt, continuations=continuations, **given)))
        return score.read_scores(await self._call(self._inference.Score, request, fields))

    async def tokenize(self, content: str | Sequence[Message], **fields: Unpack[CallFields]) -> tuple[int, ...]:
        """Ids of plain text, or of a conversation and the opening of its next turn."""
        request = encoded(lambda: inference_pb2.TokenizeRequest(**write_content(content)))
        return tuple((await self._call(self._inference.Tokenize, request, fields)).token_ids)

    async def detokenize(self, token_ids: Sequence[int], **fields: Unpack[CallFields]) -> str:
        """Text of ids."""
        request = encoded(lambda: inference_pb2.DetokenizeRequest(token_ids=token_ids))
        return (await self._call(self._inference.Detokenize, request, fields)).text

    async def get_model(self, **fields: Unpack[CallFields]) -> ModelInfo:
        """The served model."""
        return score.read_model(await self._call(self._inference.GetModel, inference_pb2.GetModelRequest(), fields))

    async def adapt(self, user_id: str, content: Content, **fields: Unpack[AdaptFields]) -> AdaptResult:
        """Teach ``user_id``'s memory; when this returns, the new version is durable."""
        given = {"request_id": uuid4().hex} | _without_timeout(fields)
        request = encoded(lambda: adaptation.write_adapt(AdaptCall(user_id=user_id, input=content, **given)))
        return adaptation.read_adapted(await self._call(self._adaptation.Adapt, request, fields))

    async def adapt_stream(self, user_id: str, parts: Parts, **fields: Unpack[AdaptStreamFields]) -> AdaptStreamResult:
        """Teach ``user_id``'s memory a long history, part by part; one new version is durable when this returns.

        Every part is a document of its own, as the input of ``adapt`` is. Parts in a list or tuple are digested first,
        so that a repeated request is answered before they are sent; parts that come one by one are sent as they come.
        """
        given = {"request_id": uuid4().hex} | digested(parts) | _without_timeout(fields)
        start = encoded(lambda: write_start(AdaptStartCall(user_id=user_id, **given)))
        with self._sending(start.start, fields, "AdaptStream") as sent_with:
            return read_streamed(await reply_to(self._adaptation.AdaptStream(**sent_with), part_requests(start, parts)))

    async def is_serving(self, service: str = "hope.v1.InferenceService", **fields: Unpack[CallFields]) -> bool:
        """Whether a service takes calls; "" asks whether the server is alive."""
        request = health_pb2.HealthCheckRequest(service=service)
        reply: Any = await self._call(self._health.Check, request, fields, "Check")
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _generate_request(prompt: Content, fields: GenerateFields) -> inference_pb2.GenerateRequest:
    given = {"request_id": uuid4().hex} | _without_timeout(fields)
    return encoded(lambda: generate.write_generate(GenerateCall(prompt=prompt, **given)))


def _without_timeout(fields: CallFields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "timeout_seconds"}
