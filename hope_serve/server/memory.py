"""MemoryService."""

# ruff: noqa: N802 (the contract names the methods)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from hope_serve.api import MAX_REQUEST_ID, MAX_SESSION_ID, check_name, check_range
from hope_serve.pb.hope.v1 import memory_pb2
from hope_serve.pb.hope.v1.memory_pb2_grpc import MemoryServiceServicer
from hope_serve.server.owners import DEFAULT_TENANT, owner_of
from hope_serve.wire import memory

if TYPE_CHECKING:
    from hope_serve.engine import Engine

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 100
MAX_VERSION = 2**62

Context = grpc.aio.ServicerContext[Any, Any]


class MemoryService(MemoryServiceServicer):
    """GetMemory, ListMemories, ListVersions, RollbackMemory, DeleteMemory, DeleteSession."""

    def __init__(self, engine: Engine) -> None:
        self._memories = engine.memories

    async def GetMemory(self, request: memory_pb2.GetMemoryRequest, _context: Context) -> memory_pb2.GetMemoryResponse:
        """Describes a user's memory."""
        version = request.version if request.HasField("version") else None
        if version is not None:
            check_range("version", version, 1, MAX_VERSION)
        return memory.write_memory(await self._memories.describe(owner_of(request.user_id), version))

    async def ListMemories(
        self, request: memory_pb2.ListMemoriesRequest, _context: Context
    ) -> memory_pb2.ListMemoriesResponse:
        """Lists the memories of the caller's tenant."""
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        check_range("page_size", size, 1, MAX_PAGE_SIZE)
        page = await self._memories.list_owners(DEFAULT_TENANT, page_size=size, page_token=request.page_token)
        return memory.write_page(*page)

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
        expected = request.expected_version if request.HasField("expected_version") else None
        if expected is not None:
            check_range("expected_version", expected, 1, MAX_VERSION)
        version = await self._memories.rollback(
            owner_of(request.user_id),
            to_version=request.to_version,
            expected_version=expected,
            request_id=request.request_id,
        )
        return memory_pb2.RollbackMemoryResponse(version=version)

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
