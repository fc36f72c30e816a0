"""AdaptationService."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc

from hope_serve.api import AdaptRequest
from hope_serve.pb.hope.v1 import adaptation_pb2
from hope_serve.pb.hope.v1.adaptation_pb2_grpc import AdaptationServiceServicer
from hope_serve.server.deadline import deadline_of
from hope_serve.server.owners import owner_of
from hope_serve.server.prompts import Prompts, payload_digest
from hope_serve.server.streaming import read_parts, read_start_of
from hope_serve.server.workers import Workers
from hope_serve.wire.adaptation import read_adapt, write_adapted
from hope_serve.wire.parts import write_streamed

if TYPE_CHECKING:
    from hope_serve.service import Service


class AdaptationService(AdaptationServiceServicer):
    """Adapt and AdaptStream."""

    def __init__(self, service: Service, prompts: Prompts, workers: Workers) -> None:
        self._service = service
        self._prompts = prompts
        self._workers = workers

    async def Adapt(
        self, request: adaptation_pb2.AdaptRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> adaptation_pb2.AdaptResponse:
        """Learns a text exactly once per request_id and answers when the memory is durable."""
        deadline = deadline_of(context)
        lesson = await self._workers.run(request.ByteSize(), lambda: self._adapt_request(request, deadline))
        return write_adapted(await self._service.adapt(lesson))

    async def AdaptStream(
        self,
        requests: AsyncIterator[adaptation_pb2.AdaptStreamRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> adaptation_pb2.AdaptStreamResponse:
        """Learns a history while it arrives, exactly once per request_id, and makes one version of it."""
        deadline = deadline_of(context)
        request = await read_start_of(requests, deadline)
        async with aclosing(read_parts(requests, self._prompts, self._workers)) as parts:
            return write_streamed(await self._service.adapt_stream(request, parts))

    def _adapt_request(self, message: adaptation_pb2.AdaptRequest, deadline: float) -> AdaptRequest:
        call = read_adapt(message)
        owner = owner_of(call.user_id)
        tokens = self._prompts.lesson(call.input)
        return AdaptRequest(
            owner=owner,
            request_id=call.request_id,
            tokens=tokens,
            payload_digest=payload_digest(tokens, call.options, call.expected_version),
            expected_version=call.expected_version,
            options=call.options,
            source=call.source,
            deadline=deadline,
        )
