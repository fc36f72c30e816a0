"""AdaptStream over the wire: the messages and their order, limits, retries, allowances, metrics, the client."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from support.counting import until_counted
from support.server_running import connect

from hope_serve.api import AdaptOptions, Source
from hope_serve.client import HopeClient, Message, parts_digest
from hope_serve.errors import Exhausted, InvalidRequest, NotFound, RequestIdReused, VersionConflict
from hope_serve.pb.hope.v1 import adaptation_pb2
from hope_serve.wire.parts import AdaptStartCall, write_end, write_part, write_start

HISTORY = (
    "My dog is called Biscuit, and my sister lives in Bergen. " * 3,
    [Message(role="user", text="I like tea."), Message(role="assistant", text="Without sugar?")],
    [20, 30, 40, 50, 60, 70],
    "I work as a luthier. " * 5,
)


async def test_a_history_of_every_kind_becomes_one_version_like_its_parts_one_by_one(open_server):
    async with open_server(deterministic=True) as server, connect(server) as client:
        source = Source(id="diary", uri="file:///diary", time=1.5)
        done = await client.adapt_stream("ann", HISTORY, source=source)
        for part in HISTORY:
            single = await client.adapt("bob", part)
        assert (done.result.version, single.version, done.num_parts_resumed) == (1, 4, 0)
        assert done.result.state_digest == single.state_digest
        assert done.result.metrics.levels == single.metrics.levels
        report = await client.get_memory("ann")
        assert (report.state_digest, report.sources) == (done.result.state_digest, (source,))


@pytest.mark.parametrize("given", ["list", "generator", "async generator"])
async def test_a_repeated_request_id_answers_with_the_first_result(client, given):
    async def one_by_one():
        for part in HISTORY:
            yield part

    def parts():
        made = {"list": list(HISTORY), "generator": (part for part in HISTORY), "async generator": one_by_one()}
        return made[given]

    first = await client.adapt_stream("ann", parts(), request_id="once")
    again = await client.adapt_stream("ann", parts(), request_id="once")
    assert again.result.duplicate and not first.result.duplicate
    assert again.result.metrics == first.result.metrics
    for changes in ({"options": AdaptOptions(passes=2)}, {"expected_version": 0}):
        with pytest.raises(RequestIdReused):
            await client.adapt_stream("ann", parts(), request_id="once", **changes)
    with pytest.raises(RequestIdReused):
        await client.adapt_stream("ann", [*HISTORY, "more"], request_id="once")
    assert (await client.get_memory("ann")).version == 1


async def test_a_known_digest_is_answered_before_the_parts_are_sent(client):
    first = await client.adapt_stream("ann", HISTORY, request_id="once")
    sent = []

    async def slowly():
        for part in HISTORY:
            sent.append(part)
            yield part
            await asyncio.sleep(0.5)

    digest = parts_digest(HISTORY)
    again = await client.adapt_stream("ann", slowly(), request_id="once", payload_digest=digest)
    assert again.result.duplicate and again.result.version == first.result.version
    assert len(sent) < len(HISTORY)


async def test_a_stream_that_closes_without_its_end_changes_nothing_and_can_go_on(channel, client):
    start, parts = _start("once"), [write_part(part) for part in HISTORY]
    error = await _refused(channel, [start, *parts])
    assert (error.code(), "end" in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    with pytest.raises(NotFound):
        await client.get_memory("ann")
    done = await client.adapt_stream("ann", HISTORY, request_id="once")
    assert (done.num_parts_resumed, done.result.version) == (4, 1)
    assert done.result.state_digest == (await client.adapt_stream("bob", HISTORY)).result.state_digest


async def test_a_client_that_goes_away_leaves_nothing(channel, client):
    call = channel.stream_unary("/hope.v1.AdaptationService/AdaptStream")()
    for message in (_start("once"), write_part(HISTORY[0])):
        await call.write(message.SerializeToString())
    call.cancel()
    await asyncio.sleep(0.3)
    with pytest.raises(NotFound):
        await client.get_memory("ann")
    assert (await client.adapt_stream("ann", HISTORY, request_id="once")).result.version == 1


async def test_messages_out_of_place_are_refused_by_name(channel, client):
    start, part = _start("r"), write_part("I like tea.")
    for messages, said in (
        ([], "start: the first message"),
        ([part], "start: the first message"),
        ([start, start, write_end(0)], r"parts[0].event: it is start"),
        ([start, part, adaptation_pb2.AdaptStreamRequest()], r"parts[1].event: it is not set"),
        ([start, part, write_end(2)], "end.num_parts: it is 2, but 1 parts"),
        ([start, part, write_end(1), part], "end: a message follows"),
        ([start, write_end(0)], "parts: there is none"),
        ([start, part, adaptation_pb2.AdaptStreamRequest(part={})], "parts[1].input: nothing is set"),
        ([start, part, write_part([5, 10**6]), write_end(2)], "parts[1].token_ids[1]: 1000000 is outside"),
        ([start, write_part([5] * 3000), write_end(1)], "parts[0].input: 3000 tokens"),
        ([_start("")], "start.request_id"),
        ([_start("r", user_id="")], "start.user_id"),
        ([_start("r", payload_digest="ABC")], "start.payload_digest: 'ABC' is no sha256"),
        ([_start("r", options=AdaptOptions(levels=(7,))), part, write_end(1)], "start.options.levels: 7"),
    ):
        error = await _refused(channel, messages)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, said
        assert said in error.details()
    with pytest.raises(NotFound):
        await client.get_memory("ann")


async def test_a_history_beyond_the_limit_is_refused_by_its_name_and_so_is_a_silent_client(open_server):
    async def silent():
        yield "I like tea."
        await asyncio.sleep(60)

    async with (
        open_server(max_stream_tokens=60, write_timeout_seconds=0.3) as server,
        connect(server) as client,
    ):
        with pytest.raises(InvalidRequest, match=r"parts\[\d\].*engine\.max_stream_tokens 60"):
            await client.adapt_stream("ann", HISTORY)
        with pytest.raises(Exhausted, match="sent nothing for write_timeout_seconds"):
            await client.adapt_stream("ann", silent())
        with pytest.raises(NotFound):
            await client.get_memory("ann")


async def test_a_stream_longer_than_a_message_may_be_is_learned(open_server):
    async with open_server(max_message_bytes=1024) as server, connect(server) as client:
        parts = [f"Line {i} of a long diary. " * 20 for i in range(6)]
        assert sum(map(len, parts)) > 2 * 1024
        assert (await client.adapt_stream("ann", parts)).result.version == 1


async def test_a_stream_waits_for_its_allowance_instead_of_breaking(open_server):
    """30 tokens a second, and half a second of them at once: more than that has to wait."""
    limits = {"learn_tokens_per_second": 30.0}
    async with open_server(user_limits=limits, burst_seconds=0.5) as server, connect(server) as client:
        parts = [[20 + i] * count for i, count in enumerate((15, 15, 15, 1200))]  # the last is paid for in 40 s
        began = time.monotonic()
        done = await client.adapt_stream("ann", parts)
        assert done.result.metrics.tokens_given == 1245
        assert time.monotonic() - began > 0.9
        with pytest.raises(Exhausted, match="learn_tokens_per_second"):
            await client.adapt_stream("ann", parts)


async def test_a_stream_takes_a_slot_to_its_end(open_server):
    async with open_server(user_limits={"slots": 1}) as server, connect(server) as client:

        async def meanwhile():
            yield "I like tea."
            with pytest.raises(Exhausted, match="slots"):
                await client.adapt("ann", "I live in Bergen.")
            yield "I work as a luthier."

        await client.adapt_stream("ann", meanwhile())
        assert (await client.adapt("ann", "I live in Bergen.")).version == 2


async def test_a_client_says_what_is_no_history(client):
    with pytest.raises(InvalidRequest, match="it is one text"):
        await client.adapt_stream("ann", "I like tea.")
    with pytest.raises(InvalidRequest, match="32 bits"):
        await client.adapt_stream("ann", [[2**40, 1]])

    async def broken():
        yield "I like tea."
        raise LookupError("the diary ends here")

    with pytest.raises(LookupError, match="the diary ends here"):
        await client.adapt_stream("ann", broken())
    with pytest.raises(NotFound):
        await client.get_memory("ann")


async def test_a_refusal_that_comes_while_parts_are_sent_is_the_one_that_is_raised(client):
    """Again and again: a write that fails since the call has ended must not hide how it ended."""
    await client.adapt("ann", "I like tea.")
    for _ in range(60):
        with pytest.raises(VersionConflict):
            await client.adapt_stream("ann", ["x y z"] * 40, expected_version=9)


async def test_the_blocking_client_streams_as_well(server):
    def teach():
        with HopeClient(f"127.0.0.1:{server.port}") as client:
            return client.adapt_stream("ann", list(HISTORY)).result.version

    assert await asyncio.to_thread(teach) == 1


async def test_streams_are_counted_like_all_calls(client, server, channel):
    await client.adapt_stream("ann", HISTORY)
    await _refused(channel, [])
    for code in ("OK", "INVALID_ARGUMENT"):
        await until_counted(server, "AdaptStream", code)


def _start(request_id, *, user_id="ann", **fields):
    return write_start(AdaptStartCall(user_id=user_id, request_id=request_id, **fields))


async def _refused(channel, messages) -> grpc.aio.AioRpcError:
    raws = [message.SerializeToString() for message in messages]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.stream_unary("/hope.v1.AdaptationService/AdaptStream")(iter(raws))
    return refused.value
