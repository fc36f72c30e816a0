"""A gRPC server of the hope.v1 contract that answers as it is told, and counts what it was asked."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from hope_serve.errors import HopeError
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2
from hope_serve.pb.hope.v1.adaptation_pb2_grpc import AdaptationServiceServicer, add_AdaptationServiceServicer_to_server
from hope_serve.pb.hope.v1.inference_pb2_grpc import InferenceServiceServicer, add_InferenceServiceServicer_to_server
from hope_serve.wire.status import code_of, trailers, write_status

READY = "hope.v1.InferenceService"


class ToldPod(InferenceServiceServicer, AdaptationServiceServicer):
    """``refusal``: the error that every call gets; ``seen``: calls by method; ``headers``: of the last call."""

    def __init__(self):
        self.refusal: HopeError | None = None
        self.breaks_off = False
        self.seen = Counter()
        self.headers = {}
        self._health = health.HealthServicer()
        self._server = grpc.aio.server()
        for add in (add_InferenceServiceServicer_to_server, add_AdaptationServiceServicer_to_server):
            add(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def __aenter__(self) -> Self:
        await self.set_ready(True)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)

    async def set_ready(self, ready):
        good, bad = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(READY, good if ready else bad)

    async def Generate(self, request, context):
        await self._take("Generate", context)
        return inference_pb2.GenerateResponse()

    async def GenerateStream(self, request, context):
        await self._take("GenerateStream", context)
        yield inference_pb2.GenerateStreamResponse()
        if self.breaks_off:
            await self._refuse(context, HopeError("the rest is lost"))

    async def Adapt(self, request, context):
        await self._take("Adapt", context)
        return adaptation_pb2.AdaptResponse(version=1)

    async def GetModel(self, request, context):
        await self._take("GetModel", context)
        await asyncio.sleep(0)
        return inference_pb2.GetModelResponse()

    async def _take(self, method, context):
        self.seen[method] += 1
        self.headers = dict(context.invocation_metadata())
        if self.refusal:
            await self._refuse(context, self.refusal)

    async def _refuse(self, context, error):
        status = write_status(error, "id")
        await context.abort(code_of(error), status.message, trailers(status, error))
