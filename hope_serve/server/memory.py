"""MemoryService."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import Message as Pb

from hope_serve.api import (
    MAX_REQUEST_ID,
    MAX_SESSION_ID,
    MAX_USER_ID,
    EvaluateRequest,
    MemoryChoice,
    Probe,
    check_name,
    check_passphrase,
    check_range,
)
from hope_serve.errors import InvalidRequest, within
from hope_serve.pb.hope.v1 import memory_pb2
from hope_serve.pb.hope.v1.memory_pb2_grpc import MemoryServiceServicer
from hope_serve.server.deadline import deadline_of
from hope_serve.server.owners import current_caller, owner_of, require_admin
from hope_serve.server.page_token import read_page_token, write_page_token
from hope_serve.server.prompts import Prompts
from hope_serve.server.workers import Workers
from hope_serve.wire import memory
from hope_serve.wire.calls import ProbeCall

if TYPE_CHECKING:
    from hope_serve.service import Service

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100
MAX_VERSION = 2**62

Context = grpc.aio.ServicerContext[Any, Any]


class MemoryService(MemoryServiceServicer):
    """Everything about memories but teaching and reading them."""

    def __init__(self, service: Service, prompts: Prompts, workers: Workers) -> None:
        self._service = service
        self._memories = service.memories
        self._prompts = prompts
        self._workers = workers

    async def GetMemory(self, request: memory_pb2.GetMemoryRequest, _context: Context) -> memory_pb2.GetMemoryResponse:
        """Describes a user's memory."""
        version = _optional(request, "version")
        return memory.write_memory(await self._memories.describe(owner_of(request.user_id), version))

    async def ListMemories(
        self, request: memory_pb2.ListMemoriesRequest, _context: Context
    ) -> memory_pb2.ListMemoriesResponse:
        """Lists the memories of the caller's tenant."""
        tenant = current_caller().whole_tenant()
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        check_range("page_size", size, 1, MAX_PAGE_SIZE)
        cursor = read_page_token(request.page_token, tenant)
        lines, cursor = await self._memories.list_owners(tenant, page_size=size, page_token=cursor)
        return memory.write_page(lines, write_page_token(cursor, tenant))

    async def ListVersions(
        self, request: memory_pb2.ListVersionsRequest, _context: Context
    ) -> memory_pb2.ListVersionsResponse:
        """Lists the versions of a user's memory, oldest first."""
        return memory.write_versions(await self._memories.versions(owner_of(request.user_id)))

    async def RollbackMemory(
        self, request: memory_pb2.RollbackMemoryRequest, _context: Context
    ) -> memory_pb2.RollbackMemoryResponse:
        """Makes a new version with the content of an older one."""
        check_name("request_id", request.request_id, MAX_REQUEST_ID)
        check_range("to_version", request.to_version, 1, MAX_VERSION)
        expected = _optional(request, "expected_version")
        version = await self._memories.rollback(
            owner_of(request.user_id),
            to_version=request.to_version,
            expected_version=expected,
            request_id=request.request_id,
        )
        return memory_pb2.RollbackMemoryResponse(version=version)

    async def ForkMemory(
        self, request: memory_pb2.ForkMemoryRequest, _context: Context
    ) -> memory_pb2.ForkMemoryResponse:
        """Gives a user who has no memory a copy of another user's."""
        check_name("request_id", request.request_id, MAX_REQUEST_ID)
        check_name("target_user_id", request.target_user_id, MAX_USER_ID)
        if request.target_user_id == request.user_id:
            raise InvalidRequest("target_user_id", f"{request.user_id!r} is the source as well; name another user")
        version = await self._service.copies.fork(
            owner_of(request.user_id),
            owner_of(request.target_user_id),
            version=_optional(request, "version"),
            request_id=request.request_id,
        )
        return memory_pb2.ForkMemoryResponse(version=version)

    async def EvaluateMemory(
        self, request: memory_pb2.EvaluateMemoryRequest, context: Context
    ) -> memory_pb2.EvaluateMemoryResponse:
        """Weighs given texts by the plain model and by versions of a user's memory."""
        deadline = deadline_of(context)
        evaluation = await self._workers.run(request.ByteSize(), lambda: self._evaluate_request(request, deadline))
        results = await self._service.evaluate(evaluation)
        num_tokens = sum(result.num_tokens for result in results)
        return await self._workers.run(num_tokens, lambda: memory.write_evaluations(results))

    async def ExportMemory(
        self, request: memory_pb2.ExportMemoryRequest, _context: Context
    ) -> AsyncIterator[memory_pb2.ExportMemoryResponse]:
        """Sends one version of a memory as a sealed file, piece by piece."""
        passphrase = _passphrase(request)
        if passphrase is None:
            require_admin()  # whoever has the file can read it
        pieces = self._service.copies.export(
            owner_of(request.user_id), version=_optional(request, "version"), passphrase=passphrase
        )
        async for piece in pieces:
            yield memory_pb2.ExportMemoryResponse(content=piece)

    async def ImportMemory(
        self, requests: AsyncIterator[memory_pb2.ImportMemoryRequest], _context: Context
    ) -> memory_pb2.ImportMemoryResponse:
        """Gives a user who has no memory the one in a file that ExportMemory sent."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "start":
            raise InvalidRequest("start", "the first message does not set it; say whose the file is, then send it")
        start = first.start
        check_name("start.request_id", start.request_id, MAX_REQUEST_ID)
        version = await self._service.copies.take_in(
            owner_of(start.user_id), _contents(requests), request_id=start.request_id, passphrase=_passphrase(start)
        )
        return memory_pb2.ImportMemoryResponse(version=version)

    async def WarmMemory(
        self, request: memory_pb2.WarmMemoryRequest, _context: Context
    ) -> memory_pb2.WarmMemoryResponse:
        """Brings a user's memory out of the store ahead of the calls that will read it."""
        choice = MemoryChoice(min_version=_optional(request, "min_version"))
        warmed = await self._memories.warm(owner_of(request.user_id), choice)
        return memory_pb2.WarmMemoryResponse(version=warmed.version, was_warm=warmed.was_warm)

    async def DeleteMemory(
        self, request: memory_pb2.DeleteMemoryRequest, _context: Context
    ) -> memory_pb2.DeleteMemoryResponse:
        """Erases every copy of a user's memory and every session of the user."""
        return memory.write_receipt(await self._memories.delete(owner_of(request.user_id)))

    async def DeleteSession(
        self, request: memory_pb2.DeleteSessionRequest, _context: Context
    ) -> memory_pb2.DeleteSessionResponse:
        """Erases one conversation's state."""
        check_name("session_id", request.session_id, MAX_SESSION_ID)
        deleted = await self._memories.delete_session(owner_of(request.user_id), request.session_id)
        return memory_pb2.DeleteSessionResponse(deleted=deleted)

    def _evaluate_request(self, message: memory_pb2.EvaluateMemoryRequest, deadline: float) -> EvaluateRequest:
        call = memory.read_evaluate(message)
        return EvaluateRequest(
            owner=owner_of(call.user_id),
            probes=tuple(self._probe(probe, i) for i, probe in enumerate(call.probes)),
            versions=tuple(call.versions),
            deadline=deadline,
        )

    def _probe(self, probe: ProbeCall, index: int) -> Probe:
        with within(f"probes[{index}]"):
            return Probe(
                prompt=self._prompts.document_start(probe.prompt),
                continuation=self._prompts.continuation(probe.continuation),
            )


async def _contents(requests: AsyncIterator[memory_pb2.ImportMemoryRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "content":
            raise InvalidRequest("content", "a message after the first does not set it; send the file's bytes")
        yield request.content


def _optional(request: Pb, field: str) -> int | None:
    """A version that may be left out."""
    if not request.HasField(field):
        return None
    version: int = getattr(request, field)
    check_range(field, version, 1, MAX_VERSION)
    return version


def _passphrase(request: memory_pb2.ExportMemoryRequest | memory_pb2.ImportStart) -> str | None:
    passphrase = request.passphrase if request.HasField("passphrase") else None
    check_passphrase(passphrase)
    return passphrase
