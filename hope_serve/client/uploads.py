"""Files on their way to the server, in messages of a size that every server takes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable

from hope_serve.pb.hope.v1 import memory_pb2

PIECE_BYTES = 64 * 1024


async def import_requests(
    start: memory_pb2.ImportStart, file: Iterable[bytes] | AsyncIterable[bytes]
) -> AsyncIterator[memory_pb2.ImportMemoryRequest]:
    """The messages of ImportMemory."""
    yield memory_pb2.ImportMemoryRequest(start=start)
    async for content in _each(file):
        for at in range(0, len(content), PIECE_BYTES):
            yield memory_pb2.ImportMemoryRequest(content=content[at : at + PIECE_BYTES])


async def _each(file: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(file, AsyncIterable):
        async for content in file:
            yield content
    else:
        for content in file:
            yield content
