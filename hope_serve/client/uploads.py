"""What goes to the server message by message: files, and histories part by part."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from typing import Any, TypeAlias, TypeVar

import grpc

from hope_serve.client.connection import encoded
from hope_serve.errors import InvalidRequest
from hope_serve.pb.hope.v1 import adaptation_pb2, memory_pb2
from hope_serve.wire.content import Content
from hope_serve.wire.parts import parts_digest, write_end, write_part

R = TypeVar("R")
T = TypeVar("T")
Parts: TypeAlias = Iterable[Content] | AsyncIterable[Content]
PIECE_BYTES = 64 * 1024


async def import_requests(
    start: memory_pb2.ImportStart, file: Iterable[bytes] | AsyncIterable[bytes]
) -> AsyncGenerator[memory_pb2.ImportMemoryRequest]:
    """The messages of ImportMemory."""
    yield memory_pb2.ImportMemoryRequest(start=start)
    async for content in _each(file):
        for at in range(0, len(content), PIECE_BYTES):
            yield memory_pb2.ImportMemoryRequest(content=content[at : at + PIECE_BYTES])


def digested(parts: Parts) -> dict[str, str]:
    """The payload digest of parts that are all there, as the start's field; nothing of others.

    Raises:
        InvalidRequest: they are one text, or one of them is no content.
    """
    if isinstance(parts, str):
        raise InvalidRequest("parts", "it is one text; give a list of parts, or use adapt")
    if not isinstance(parts, list | tuple):
        return {}
    return {"payload_digest": encoded(lambda: parts_digest(parts))}


async def part_requests(
    start: adaptation_pb2.AdaptStreamRequest, parts: Parts
) -> AsyncGenerator[adaptation_pb2.AdaptStreamRequest]:
    """The messages of AdaptStream."""
    yield start
    count = 0
    async for part in _each(parts):
        yield encoded(functools.partial(write_part, part))
        count += 1
    yield write_end(count)


async def reply_to(call: grpc.aio.StreamUnaryCall[Any, R], messages: AsyncGenerator[Any]) -> R:
    """The reply to a stream of messages. One that comes before their end, an answer or a refusal, ends the sending."""
    sending = asyncio.ensure_future(_send(call, messages))

    def stop(_call: object) -> None:
        """At once, not when a write fails: gRPC would then report the failed write instead of how the call ended."""
        sending.cancel()

    call.add_done_callback(stop)
    try:
        await asyncio.wait((sending,))
        if not sending.cancelled():
            sending.result()  # raises what the messages themselves raised
        return await call
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        call.cancel()


async def _send(call: grpc.aio.StreamUnaryCall[Any, Any], messages: AsyncGenerator[Any]) -> None:
    async with aclosing(messages):
        async for message in messages:
            with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # the call has ended; it says itself how
                await call.write(message)
            if call.done():
                return
    await call.done_writing()


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
