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
from hope_serve.server.owners import current_caller, reader_of
from hope_serve.server.prompts import Prompts
from hope_serve.server.workers import Workers
from hope_serve.wire import generate, score
from hope_serve.wire.calls import GenerateCall
from hope_serve.wire.content import read_content

if TYPE_CHECKING:
    from hope_serve.service import Service

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceService(InferenceServiceServicer):
    """Generate, GenerateStream, Score, Tokenize, Detokenize, GetModel."""

    def __init__(self, service: Service, prompts: Prompts, learner: Learner, workers: Workers) -> None:
        self._service = service
        self._prompts = prompts
        self._learner = learner
        self._workers = workers

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> inference_pb2.GenerateResponse:
        """Continues a prompt and answers when it is done."""
        gathering = Gathering()
        async with aclosing(self._events(request, deadline_of(context))) as events:
            async for event in events:
                gathering.add(event)
        return generate.write_generation(gathering.generation())

    async def GenerateStream(
        self, request: inference_pb2.GenerateStreamRequest, context: Context
    ) -> AsyncIterator[inference_pb2.GenerateStreamResponse]:
        """Continues a prompt and sends the text as it appears."""
        async with aclosing(self._events(request.request, deadline_of(context))) as events:
            async for event in events:
                yield generate.write_event(event)

    async def Score(self, request: inference_pb2.ScoreRequest, context: Context) -> inference_pb2.ScoreResponse:
        """Gives the log-likelihood of continuations of one prompt."""
        deadline = deadline_of(context)
        weighed = await self._workers.run(request.ByteSize(), lambda: self._score_request(request, deadline))
        scores = await self._service.score(weighed)
        num_tokens = sum(len(result.token_logprobs) for result in scores)
        return await self._workers.run(num_tokens, lambda: score.write_scores(scores))

    async def Tokenize(
        self, request: inference_pb2.TokenizeRequest, _context: Context
    ) -> inference_pb2.TokenizeResponse:
        """Turns text into token ids."""
        return await self._workers.run(
            request.ByteSize(),
            lambda: inference_pb2.TokenizeResponse(token_ids=self._prompts.plain(read_content(request, "input"))),
        )

    async def Detokenize(
        self, request: inference_pb2.DetokenizeRequest, _context: Context
    ) -> inference_pb2.DetokenizeResponse:
        """Turns token ids into text."""
        return await self._workers.run(
            request.ByteSize(),
            lambda: inference_pb2.DetokenizeResponse(text=self._prompts.text(tuple(request.token_ids))),
        )

    async def GetModel(
        self, _request: inference_pb2.GetModelRequest, _context: Context
    ) -> inference_pb2.GetModelResponse:
        """Describes the served model."""
        return score.write_model(self._service.info)

    async def _events(self, message: inference_pb2.GenerateRequest, deadline: float) -> AsyncGenerator[GenerateEvent]:
        call, request = await self._workers.run(message.ByteSize(), lambda: self._read_generate(message, deadline))
        async with (
            Exchange(call, self._prompts, self._learner, self._workers) as exchange,
            aclosing(self._service.generate(request)) as events,
        ):
            async for event in events:
                await exchange.note(event)
                yield replace(event, request_id=call.request_id) if isinstance(event, Started) else event

    def _score_request(self, message: inference_pb2.ScoreRequest, deadline: float) -> ScoreRequest:
        call = score.read_score(message)
        return ScoreRequest(
            prompt=self._prompts.prompt(call.prompt),
            continuations=tuple(self._prompts.continuation(part) for part in call.continuations),
            owner=reader_of(call.user_id),
            payer=current_caller().tenant,
            memory=call.memory,
            deadline=deadline,
        )

    def _read_generate(
        self, message: inference_pb2.GenerateRequest, deadline: float
    ) -> tuple[GenerateCall, GenerateRequest]:
        call = generate.read_generate(message)
        call = call if call.request_id else replace(call, request_id=uuid4().hex)
        owner = reader_of(call.user_id)
        self._prompts.check_sampling(call.sampling)
        return call, GenerateRequest(
            prompt=self._prompts.prompt(call.prompt),
            sampling=call.sampling,
            owner=owner,
            payer=current_caller().tenant,
            memory=call.memory,
            following=self._prompts.following(call.prompt) if call.session_id else (),
            session_id=call.session_id,
            request_id=call.request_id,
            priority=call.priority,
            deadline=deadline,
        )
