"""InferenceService."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc

from hope_serve.api import GenerateEvent, GenerateRequest, ScoreRequest, Started
from hope_serve.pb.hope.v1 import inference_pb2
from hope_serve.pb.hope.v1.inference_pb2_grpc import InferenceServiceServicer
from hope_serve.server.deadline import deadline_of
from hope_serve.server.exchange import Exchange
from hope_serve.server.gathering import Gathering
from hope_serve.server.learner import Learner
from hope_serve.server.owners import reader_of
from hope_serve.server.prompts import Prompts
from hope_serve.wire import generate, score
from hope_serve.wire.calls import GenerateCall
from hope_serve.wire.content import read_content

if TYPE_CHECKING:
    from hope_serve.service import Service

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(InferenceServiceServicer):
    """Generate, GenerateStream, Score, Tokenize, Detokenize, GetModel."""

    def __init__(self, service: Service, prompts: Prompts, learner: Learner) -> None:
        self._service = service
        self._prompts = prompts
        self._learner = learner

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> inference_pb2.GenerateResponse:
        """Continues a prompt and answers when it is done."""
        gathering = Gathering()
        async with aclosing(self._events(generate.read_generate(request), deadline_of(context))) as events:
            async for event in events:
                gathering.add(event)
        return generate.write_generation(gathering.generation())

    async def GenerateStream(
        self, request: inference_pb2.GenerateStreamRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateStreamResponse]:
        """Continues a prompt and sends the text as it appears."""
        call = generate.read_generate(request.request)
        async with aclosing(self._events(call, deadline_of(context))) as events:
            async for event in events:
                yield generate.write_event(event)

    async def Score(self, request: inference_pb2.ScoreRequest, context: Context) -> inference_pb2.ScoreResponse:
        """Gives the log-likelihood of continuations of one prompt."""
        call = score.read_score(request)
        weighed = ScoreRequest(
            prompt=await self._prompts.prompt(call.prompt),
            continuations=tuple([await self._prompts.continuation(part) for part in call.continuations]),
            owner=reader_of(call.user_id),
            memory=call.memory,
            deadline=deadline_of(context),
        )
        return score.write_scores(await self._service.score(weighed))

    async def Tokenize(
        self, request: inference_pb2.TokenizeRequest, _context: Context
    ) -> inference_pb2.TokenizeResponse:
        """Turns text into token ids."""
        ids = await self._prompts.plain(read_content(request, "input"))
        return inference_pb2.TokenizeResponse(token_ids=ids)

    async def Detokenize(
        self, request: inference_pb2.DetokenizeRequest, _context: Context
    ) -> inference_pb2.DetokenizeResponse:
        """Turns token ids into text."""
        self._prompts.check_ids("token_ids", request.token_ids)
        return inference_pb2.DetokenizeResponse(text=self._prompts.tokenizer.decode(request.token_ids))

    async def GetModel(
        self, _request: inference_pb2.GetModelRequest, _context: Context
    ) -> inference_pb2.GetModelResponse:
        """Describes the served model."""
        return score.write_model(self._service.info)

    async def _events(self, call: GenerateCall, deadline: float) -> AsyncGenerator[GenerateEvent]:
        call = call if call.request_id else replace(call, request_id=uuid4().hex)
        request = await self._service_request(call, deadline)
        async with (
            Exchange(call, self._prompts, self._learner) as exchange,
            aclosing(self._service.generate(request)) as events,
        ):
            async for event in events:
                await exchange.note(event)
                yield replace(event, request_id=call.request_id) if isinstance(event, Started) else event

    async def _service_request(self, call: GenerateCall, deadline: float) -> GenerateRequest:
        owner = reader_of(call.user_id)
        self._prompts.check_sampling(call.sampling)
        return GenerateRequest(
            prompt=await self._prompts.prompt(call.prompt),
            sampling=call.sampling,
            owner=owner,
            memory=call.memory,
            session_id=call.session_id,
            request_id=call.request_id,
            priority=call.priority,
            deadline=deadline,
        )
