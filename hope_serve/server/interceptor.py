"""What happens around every call of ours: who calls, admission, one mapping of errors, measurement, slow readers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Pb

from hope_serve.errors import Exhausted, HopeError, InvalidRequest
from hope_serve.metrics import Metrics
from hope_serve.server.admission import Admission
from hope_serve.server.door import Door
from hope_serve.server.logs import logging_call, note_request
from hope_serve.server.measure import measure_call, measure_rejection
from hope_serve.server.owners import current_caller
from hope_serve.server.tenants import TenantCall
from hope_serve.server.tracing import Tracing
from hope_serve.server.workers import Workers
from hope_serve.wire.status import code_of, trailers, write_status

OURS = "/hope.v1."
ABORT_SECONDS = 1.0
"""A refusal may stand in line behind replies that the client does not read; nobody waits for it longer than this."""

log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(kw_only=True)
class Call:
    """One call while it is answered."""

    path: str
    context: Context
    tenant: TenantCall
    correlation_id: str = field(default_factory=lambda: uuid4().hex)
    started_at: float = field(default_factory=time.perf_counter)
    code: grpc.StatusCode = grpc.StatusCode.OK
    last_reply: Pb | None = None

    @property
    def method(self) -> str:
        """The path without the service."""
        return self.path.rpartition("/")[2]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of the hope.v1 services; health and reflection pass untouched."""

    def __init__(
        self,
        door: Door,
        admission: Admission,
        metrics: Metrics,
        workers: Workers,
        tracing: Tracing,
        *,
        write_timeout_seconds: float,
    ) -> None:
        self._door = door
        self._admission = admission
        self._metrics = metrics
        self._workers = workers
        self._tracing = tracing
        self._write_timeout = write_timeout_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, wrapped. It takes raw bytes: what cannot be parsed is refused like any other bad input."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OURS):
            return handler  # type: ignore[no-any-return]
        path = handler_call_details.method
        if handler.response_streaming:

            async def stream(raw: bytes, context: Context) -> None:
                call = self._called(path, context)
                await self._guard(call, lambda: self._write_all(handler, raw, call), len(raw))

            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)

        if handler.request_streaming:

            async def gathering(raws: AsyncIterator[bytes], context: Context) -> Pb | None:
                call = self._called(path, context)
                await self._guard(call, lambda: self._answer_all(handler, raws, call))
                return call.last_reply

            return grpc.stream_unary_rpc_method_handler(gathering, None, handler.response_serializer)

        async def unary(raw: bytes, context: Context) -> Pb | None:
            call = self._called(path, context)
            await self._guard(call, lambda: self._answer(handler, raw, call), len(raw))
            return call.last_reply

        return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)

    def _called(self, path: str, context: Context) -> Call:
        return Call(path=path, context=context, tenant=TenantCall(self._metrics))

    async def _guard(self, call: Call, work: Callable[[], Awaitable[None]], num_bytes: int = 0) -> None:
        metadata = tuple(call.context.invocation_metadata() or ())
        with logging_call(call.method, call.correlation_id), self._tracing.serving(call.path, metadata) as traced:
            try:
                await self._judge(call, work, num_bytes)
            finally:
                traced.end(call.code.name, call.code.value[0], call.last_reply)

    async def _judge(self, call: Call, work: Callable[[], Awaitable[None]], num_bytes: int = 0) -> None:
        try:
            await self._door.enter(call.method, call.context)
            call.tenant.begin()
            with self._admission.enter(num_bytes, current_caller().tenant):
                await work()
        except HopeError as error:
            measure_rejection(self._metrics, error)
            await _refuse(call, error)
        except asyncio.CancelledError:
            expired = call.context.time_remaining() == 0
            call.code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
            raise
        except Exception:  # the one place where a bug becomes a status
            log.exception("%s failed, correlation id %s", call.method, call.correlation_id)
            await _refuse(call, HopeError(f"internal error; quote correlation id {call.correlation_id}"))
        finally:
            self._door.leave(call.method, call.code.name)
            call.tenant.end(call.code.name)
            seconds = time.perf_counter() - call.started_at
            measure_call(self._metrics, call.method, call.code.name, call.last_reply, seconds)
            log.debug("%s ended with %s after %.3f s", call.method, call.code.name, seconds)

    async def _answer(self, handler: Any, raw: bytes, call: Call) -> None:
        call.last_reply = reply = await handler.unary_unary(await self._parsed(handler, raw), call.context)
        call.tenant.replied(reply)

    async def _answer_all(self, handler: Any, raws: AsyncIterator[bytes], call: Call) -> None:
        call.last_reply = await handler.stream_unary(self._parsed_all(handler, raws), call.context)

    async def _parsed_all(self, handler: Any, raws: AsyncIterator[bytes]) -> AsyncIterator[Pb]:
        while True:
            try:
                async with asyncio.timeout(self._write_timeout):
                    raw = await anext(raws, None)
            except TimeoutError as error:
                raise Exhausted(
                    f"the client sent nothing for write_timeout_seconds {self._write_timeout:g}; send faster",
                    reason="SLOW_WRITER",
                ) from error
            if raw is None:
                return
            yield await self._parsed(handler, raw)

    async def _parsed(self, handler: Any, raw: bytes) -> Pb:
        request = await self._workers.run(len(raw), lambda: _parsed(handler, raw))
        note_request(request)
        return request

    async def _write_all(self, handler: Any, raw: bytes, call: Call) -> None:
        replies: AsyncIterator[Pb] = handler.unary_stream(await self._parsed(handler, raw), call.context)
        async with aclosing(replies):  # type: ignore[type-var]
            async for reply in replies:
                call.last_reply = reply
                call.tenant.replied(reply)
                try:
                    async with asyncio.timeout(self._write_timeout):
                        await call.context.write(reply)
                except TimeoutError as error:
                    raise Exhausted(
                        f"the client took no reply for write_timeout_seconds {self._write_timeout:g}; read faster",
                        reason="SLOW_READER",
                    ) from error


def _parsed(handler: Any, raw: bytes) -> Pb:
    try:
        request: Pb = handler.request_deserializer(raw)
    except DecodeError as error:
        raise InvalidRequest("request", f"{len(raw)} bytes are not the method's message; see proto/hope/v1") from error
    return request


async def _refuse(call: Call, error: HopeError) -> None:
    call.code = code_of(error)
    status = write_status(error, call.correlation_id)
    sent = trailers(status, error)
    _forget(error)
    try:
        async with asyncio.timeout(ABORT_SECONDS):
            await call.context.abort(call.code, status.message, sent)
    except TimeoutError:
        pass
    except grpc.aio.AbortError as ended:
        _forget(ended)  # the library keeps it with the call, and raises it again when the handler returns


def _forget(error: BaseException) -> None:
    """Let an error that has done its work know nothing of where it was.

    It leads to every frame that it passed, and one of them to it: whole messages would wait for a search for garbage.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
