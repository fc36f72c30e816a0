"""The calls of MemoryService: look at memories, judge, copy, move, turn back and erase them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Unpack
from uuid import uuid4

from hope_serve.api import ErasureReceipt, Evaluation, MemoryReport, MemorySummary, VersionReport, Warmed
from hope_serve.client.channel import ChannelOptions
from hope_serve.client.connection import CallFields, Connection, encoded
from hope_serve.client.uploads import import_requests, reply_to
from hope_serve.pb.hope.v1 import memory_pb2
from hope_serve.pb.hope.v1.memory_pb2_grpc import MemoryServiceStub
from hope_serve.wire import memory
from hope_serve.wire.calls import EvaluateCall, ProbeCall


class MemoryCalls(Connection):
    """Every RPC of MemoryService once."""

    def __init__(self, target: str = "", options: ChannelOptions | None = None) -> None:
        """As ``Connection``."""
        super().__init__(target, options)
        self._memory = MemoryServiceStub(self._channel)

    async def get_memory(
        self, user_id: str, *, version: int | None = None, **fields: Unpack[CallFields]
    ) -> MemoryReport:
        """One version of a memory; None is the newest."""
        request = encoded(lambda: memory_pb2.GetMemoryRequest(user_id=user_id, version=version))
        return memory.read_memory(await self._call(self._memory.GetMemory, request, fields))

    async def list_memories(
        self, *, page_size: int = 100, **fields: Unpack[CallFields]
    ) -> AsyncIterator[MemorySummary]:
        """Every memory of the caller's tenant, fetched page by page."""
        page_token = ""
        while True:
            request = encoded(lambda: memory_pb2.ListMemoriesRequest(page_size=page_size))
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
        request = encoded(
            lambda: memory_pb2.RollbackMemoryRequest(
                user_id=user_id,
                to_version=to_version,
                expected_version=expected_version,
                request_id=request_id or uuid4().hex,
            )
        )
        return (await self._call(self._memory.RollbackMemory, request, fields)).version

    async def fork_memory(
        self,
        user_id: str,
        target_user_id: str,
        *,
        version: int | None = None,
        request_id: str = "",
        **fields: Unpack[CallFields],
    ) -> int:
        """Give ``target_user_id``, who has no memory, a copy of ``user_id``'s; returns the copy's version."""
        request = encoded(
            lambda: memory_pb2.ForkMemoryRequest(
                user_id=user_id, target_user_id=target_user_id, version=version, request_id=request_id or uuid4().hex
            )
        )
        return (await self._call(self._memory.ForkMemory, request, fields)).version

    async def evaluate_memory(
        self,
        user_id: str,
        probes: Sequence[ProbeCall | str],
        *,
        versions: Sequence[int] = (),
        **fields: Unpack[CallFields],
    ) -> tuple[Evaluation, ...]:
        """Weigh texts by the plain model, then by the memory's versions (none named: the newest)."""
        weighed = [ProbeCall(continuation=probe) if isinstance(probe, str) else probe for probe in probes]
        request = encoded(
            lambda: memory.write_evaluate(EvaluateCall(user_id=user_id, probes=weighed, versions=versions))
        )
        return memory.read_evaluations(await self._call(self._memory.EvaluateMemory, request, fields))

    async def export_memory(
        self,
        user_id: str,
        *,
        version: int | None = None,
        passphrase: str | None = None,
        **fields: Unpack[CallFields],
    ) -> AsyncIterator[bytes]:
        """A version of a memory as a sealed file, piece by piece; without a passphrase anybody can read it."""
        request = encoded(
            lambda: memory_pb2.ExportMemoryRequest(user_id=user_id, version=version, passphrase=passphrase)
        )
        with self._sending(request, fields) as sent_with:
            call = self._memory.ExportMemory(request, **sent_with)
            try:
                async for message in call:
                    yield message.content
            finally:
                call.cancel()

    async def import_memory(
        self,
        user_id: str,
        file: Iterable[bytes] | AsyncIterable[bytes],
        *,
        passphrase: str | None = None,
        request_id: str = "",
        **fields: Unpack[CallFields],
    ) -> int:
        """Give ``user_id``, who has no memory, the one in a file, given in pieces of any size; returns its version."""
        start = encoded(
            lambda: memory_pb2.ImportStart(user_id=user_id, request_id=request_id or uuid4().hex, passphrase=passphrase)
        )
        with self._sending(start, fields, "ImportMemory") as sent_with:
            return (await reply_to(self._memory.ImportMemory(**sent_with), import_requests(start, file))).version

    async def warm_memory(
        self, user_id: str, *, min_version: int | None = None, **fields: Unpack[CallFields]
    ) -> Warmed:
        """Bring a memory out of the store ahead of the calls that will read it."""
        request = encoded(lambda: memory_pb2.WarmMemoryRequest(user_id=user_id, min_version=min_version))
        reply = await self._call(self._memory.WarmMemory, request, fields)
        return Warmed(version=reply.version, was_warm=reply.was_warm)

    async def delete_memory(self, user_id: str, **fields: Unpack[CallFields]) -> ErasureReceipt:
        """Erase a memory and every session of its user."""
        request = memory_pb2.DeleteMemoryRequest(user_id=user_id)
        return memory.read_receipt(await self._call(self._memory.DeleteMemory, request, fields))

    async def delete_session(self, user_id: str, session_id: str, **fields: Unpack[CallFields]) -> bool:
        """Forget a conversation; whether there was one."""
        request = memory_pb2.DeleteSessionRequest(user_id=user_id, session_id=session_id)
        return (await self._call(self._memory.DeleteSession, request, fields)).deleted
