"""The asyncio client: every RPC once, in and out as the project's nouns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypedDict, TypeVar, Unpack
from uuid import uuid4

import grpc
from google.protobuf.message import Message as Pb
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from hope_serve.api import (
    AdaptOptions,
    AdaptResult,
    ErasureReceipt,
    GenerateEvent,
    Generation,
    Learn,
    MemoryChoice,
    MemoryReport,
    MemorySummary,
    ModelInfo,
    SamplingParams,
    ScoreResult,
    Source,
    VersionReport,
)
from hope_serve.client.channel import ChannelOptions
from hope_serve.config import default_target
from hope_serve.errors import InvalidRequest, Unavailable
from hope_serve.pb.hope.v1 import inference_pb2, memory_pb2
from hope_serve.pb.hope.v1.adaptation_pb2_grpc import AdaptationServiceStub
from hope_serve.pb.hope.v1.inference_pb2_grpc import InferenceServiceStub
from hope_serve.pb.hope.v1.memory_pb2_grpc import MemoryServiceStub
from hope_serve.tokenizer import Message
from hope_serve.wire import adaptation, generate, memory, score
from hope_serve.wire.calls import AdaptCall, GenerateCall, ScoreCall
from hope_serve.wire.content import Content, write_content
from hope_serve.wire.status import UNREACHABLE, read_status

R = TypeVar("R", bound=Pb)


class CallFields(TypedDict, total=False):
    """Of any call: its own deadline, in seconds from now."""

    timeout_seconds: float


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


class AsyncHopeClient:
    """A connection to one server. Every call raises ``HopeError``; ``async with`` closes it."""

    def __init__(self, target: str = "", options: ChannelOptions | None = None) -> None:
        """``target``: host:port; empty is HOPE_TARGET or 127.0.0.1:50051."""
        self._options = options or ChannelOptions()
        self.target = target or default_target()
        self._channel = self._options.open(self.target)
        self._inference = InferenceServiceStub(self._channel)
        self._adaptation = AdaptationServiceStub(self._channel)
        self._memory = MemoryServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is under way and let go."""
        await self._channel.close()

    async def generate(self, prompt: Content, **fields: Unpack[GenerateFields]) -> Generation:
        """Continue ``prompt`` and return the complete answers."""
        request = _generate_request(prompt, fields)
        return generate.read_generation(await self._call(self._inference.Generate, request, fields))

    async def stream(self, prompt: Content, **fields: Unpack[GenerateFields]) -> AsyncIterator[GenerateEvent]:
        """Continue ``prompt``: Started, then Deltas, then one Ended a choice. Closing the iterator cancels the call."""
        request = inference_pb2.GenerateStreamRequest(request=_generate_request(prompt, fields))
        call = self._inference.GenerateStream(request, **self._limits(fields))
        try:
            with self._typed_errors():
                async for message in call:
                    yield generate.read_event(message)
        finally:
            call.cancel()

    async def score(
        self, prompt: Content, continuations: Sequence[str | Sequence[int]], **fields: Unpack[ScoreFields]
    ) -> tuple[ScoreResult, ...]:
        """Log-likelihood of every continuation after ``prompt``."""
        given = _without_timeout(fields)
        request = _encoded(lambda: score.write_score(ScoreCall(prompt=prompt, continuations=continuations, **given)))
        return score.read_scores(await self._call(self._inference.Score, request, fields))

    async def tokenize(self, content: str | Sequence[Message], **fields: Unpack[CallFields]) -> tuple[int, ...]:
        """Ids of plain text, or of a conversation and the opening of its next turn."""
        request = _encoded(lambda: inference_pb2.TokenizeRequest(**write_content(content)))
        return tuple((await self._call(self._inference.Tokenize, request, fields)).token_ids)

    async def detokenize(self, token_ids: Sequence[int], **fields: Unpack[CallFields]) -> str:
        """Text of ids."""
        request = _encoded(lambda: inference_pb2.DetokenizeRequest(token_ids=token_ids))
        return (await self._call(self._inference.Detokenize, request, fields)).text

    async def get_model(self, **fields: Unpack[CallFields]) -> ModelInfo:
        """The served model."""
        return score.read_model(await self._call(self._inference.GetModel, inference_pb2.GetModelRequest(), fields))

    async def adapt(self, user_id: str, content: Content, **fields: Unpack[AdaptFields]) -> AdaptResult:
        """Teach ``user_id``'s memory; when this returns, the new version is durable."""
        given = {"request_id": uuid4().hex} | _without_timeout(fields)
        request = _encoded(lambda: adaptation.write_adapt(AdaptCall(user_id=user_id, input=content, **given)))
        return adaptation.read_adapted(await self._call(self._adaptation.Adapt, request, fields))

    async def get_memory(
        self, user_id: str, *, version: int | None = None, **fields: Unpack[CallFields]
    ) -> MemoryReport:
        """One version of a memory; None is the newest."""
        request = _encoded(lambda: memory_pb2.GetMemoryRequest(user_id=user_id, version=version))
        return memory.read_memory(await self._call(self._memory.GetMemory, request, fields))

    async def list_memories(
        self, *, page_size: int = 100, **fields: Unpack[CallFields]
    ) -> AsyncIterator[MemorySummary]:
        """Every memory of the caller's tenant, fetched page by page."""
        page_token = ""
        while True:
            request = _encoded(lambda: memory_pb2.ListMemoriesRequest(page_size=page_size))
            request.page_token = page_token
            page, page_token = memory.read_page(await self._call(self._memory.ListMemories, request, fields))
            for summary in page:
                yield summary
            if not page_token:
                return

    async def list_versions(self, user_id: str, **fields: Unpack[CallFields]) -> tuple[VersionReport, ...]:
        """The versions of a memory, oldest first."""
        request = memory_pb2.ListVersionsRequest(user_id=user_id)
        return memory.read_versions(await self._call(self._memory.ListVersions, request, fields))

    async def rollback_memory(
        self,
        user_id: str,
        to_version: int,
        *,
        expected_version: int | None = None,
        request_id: str = "",
        **fields: Unpack[CallFields],
    ) -> int:
        """Bring an older version's content back, as the new version that is returned."""
        request = _encoded(
            lambda: memory_pb2.RollbackMemoryRequest(
                user_id=user_id,
                to_version=to_version,
                expected_version=expected_version,
                request_id=request_id or uuid4().hex,
            )
        )
        return (await self._call(self._memory.RollbackMemory, request, fields)).version

    async def delete_memory(self, user_id: str, **fields: Unpack[CallFields]) -> ErasureReceipt:
        """Erase a memory and every session of its user."""
        request = memory_pb2.DeleteMemoryRequest(user_id=user_id)
        return memory.read_receipt(await self._call(self._memory.DeleteMemory, request, fields))

    async def delete_session(self, user_id: str, session_id: str, **fields: Unpack[CallFields]) -> bool:
        """Forget a conversation; whether there was one."""
        request = memory_pb2.DeleteSessionRequest(user_id=user_id, session_id=session_id)
        return (await self._call(self._memory.DeleteSession, request, fields)).deleted

    async def is_serving(self, service: str = "hope.v1.InferenceService", **fields: Unpack[CallFields]) -> bool:
        """Whether a service takes calls; "" asks whether the server is alive."""
        request = health_pb2.HealthCheckRequest(service=service)
        reply: Any = await self._call(self._health.Check, request, fields)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def _call(self, rpc: Callable[..., Awaitable[R]], request: Pb, fields: CallFields) -> R:
        with self._typed_errors():
            return await rpc(request, **self._limits(fields))

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            meant = read_status(error.code(), error.details() or "", error.trailing_metadata() or ())
            if meant.reason == UNREACHABLE:
                meant = Unavailable(f"no server answers at {self.target}: {error.details()}", reason=UNREACHABLE)
            raise meant from error

    def _limits(self, fields: CallFields) -> dict[str, Any]:
        timeout = fields.get("timeout_seconds", self._options.timeout_seconds)
        return {"timeout": timeout, "wait_for_ready": self._options.wait_for_ready}


def _generate_request(prompt: Content, fields: GenerateFields) -> inference_pb2.GenerateRequest:
    given = {"request_id": uuid4().hex} | _without_timeout(fields)
    return _encoded(lambda: generate.write_generate(GenerateCall(prompt=prompt, **given)))


def _without_timeout(fields: CallFields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "timeout_seconds"}


def _encoded(write: Callable[[], R]) -> R:
    try:
        return write()
    except (TypeError, ValueError) as error:  # protobuf's own: a value that does not fit its field's type
        raise InvalidRequest("request", f"{error}; see the field's type in proto/hope/v1") from error
