"""The messages of AdaptStream: the start, the parts as tokens, and the end, without which nothing counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from hope_serve.api import AdaptStreamRequest, StreamedPart
from hope_serve.errors import InvalidRequest, within
from hope_serve.pb.hope.v1 import adaptation_pb2
from hope_serve.server.owners import owner_of
from hope_serve.server.prompts import Prompts
from hope_serve.server.workers import Workers
from hope_serve.wire.parts import PartsDigest, read_part, read_start

Requests = AsyncIterator[adaptation_pb2.AdaptStreamRequest]


async def read_start_of(requests: Requests, deadline: float) -> AdaptStreamRequest:
    """What the first message says. Raises InvalidRequest."""
    first = await anext(requests, None)
    if first is None or first.WhichOneof("event") != "start":
        raise InvalidRequest("start", "the first message does not set it; say whose memory learns, then send the parts")
    with within("start"):
        call = read_start(first.start)
        return AdaptStreamRequest(
            owner=owner_of(call.user_id),
            request_id=call.request_id,
            declared_digest=call.payload_digest,
            expected_version=call.expected_version,
            options=call.options,
            source=call.source,
            deadline=deadline,
        )


async def read_parts(requests: Requests, prompts: Prompts, workers: Workers) -> AsyncGenerator[StreamedPart]:
    """The parts, up to the end. A stream that closes without it has lost something on its way.

    Raises:
        InvalidRequest: a part is refused, by its number; or the end is missing, or counts other parts.
    """
    digest, count = PartsDigest(), 0
    async for request in requests:
        kind = request.WhichOneof("event")
        if kind == "end":
            await _check_end(request.end, count, requests)
            return
        with within(f"parts[{count}]"):
            if kind != "part":
                raise InvalidRequest("event", f"it is {kind or 'not set'}; send parts, and then the end")
            part = await _read_part(request, digest, prompts, workers)
        yield part
        count += 1
    raise InvalidRequest("end", f"the stream closed after {count} parts without it; nothing was written; send it again")


async def _read_part(
    request: adaptation_pb2.AdaptStreamRequest, digest: PartsDigest, prompts: Prompts, workers: Workers
) -> StreamedPart:
    def read() -> StreamedPart:
        content = read_part(request.part)
        return StreamedPart(tokens=prompts.lesson(content), digest=digest.add(content))

    return await workers.run(request.ByteSize(), read)


async def _check_end(end: adaptation_pb2.AdaptEnd, count: int, requests: Requests) -> None:
    if end.num_parts != count:
        raise InvalidRequest(
            "end.num_parts", f"it is {end.num_parts}, but {count} parts arrived; nothing was written; send all again"
        )
    if await anext(requests, None) is not None:
        raise InvalidRequest("end", "a message follows it; close the stream behind the end")
