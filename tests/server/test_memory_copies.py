"""Memories that are copied, sent away, taken in and brought near, through a real client."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from support.counting import until_counted
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.errors import (
    CorruptMemory,
    Exhausted,
    FailedPrecondition,
    HopeError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestIdReused,
    VersionConflict,
)
from hope_serve.memory.portable import Portable, write_portable
from hope_serve.memory.snapshot import Snapshot, TensorBytes
from hope_serve.pb.hope.v1 import memory_pb2
from hope_serve.pb.hope.v1.memory_pb2_grpc import MemoryServiceStub

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
LESSON = "My dog is called Biscuit. " * 12


@pytest.fixture
async def ann(client):
    first = await client.adapt("ann", LESSON, request_id="one")
    second = await client.adapt("ann", "I like tea without sugar. " * 12, request_id="two")
    return first, second


async def exported(client, user="ann", **options):
    return b"".join([piece async for piece in client.export_memory(user, **options)])


async def test_a_fork_answers_as_its_source_and_then_learns_alone(client, ann):
    assert await client.fork_memory("ann", "bob", request_id="fork") == 1
    assert await client.fork_memory("ann", "bob", request_id="fork") == 1
    assert (await client.get_memory("bob")).state_digest == ann[1].state_digest
    mine, theirs = [await client.generate("My dog", user_id=user, sampling=GREEDY) for user in ("ann", "bob")]
    assert mine.choices[0].token_ids == theirs.choices[0].token_ids
    assert (await client.list_versions("bob"))[0].kind == "fork"
    await client.adapt("bob", LESSON)
    assert (await client.get_memory("ann")).state_digest == ann[1].state_digest
    await client.delete_memory("ann")
    assert (await client.get_memory("bob")).version == 2


async def test_a_fork_of_an_older_version_and_the_forks_that_are_refused(client, ann):
    await client.fork_memory("ann", "bob", version=1, request_id="fork")
    assert (await client.get_memory("bob")).state_digest == ann[0].state_digest
    with pytest.raises(RequestIdReused):
        await client.fork_memory("ann", "bob", version=2, request_id="fork")
    with pytest.raises(VersionConflict, match="erase"):
        await client.fork_memory("ann", "bob")
    with pytest.raises(NotFound):
        await client.fork_memory("nobody", "carl")
    with pytest.raises(InvalidRequest, match=r"target_user_id.*'ann'.*another"):
        await client.fork_memory("ann", "ann")


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
async def test_a_file_brings_a_memory_to_another_user_bit_for_bit(client, ann, passphrase):
    file = await exported(client, passphrase=passphrase)
    pieces = [file[at : at + 1000] for at in range(0, len(file), 1000)]
    for _ in range(2):
        assert await client.import_memory("bob", pieces, passphrase=passphrase, request_id="import") == 1
    assert (await client.get_memory("bob")).state_digest == ann[1].state_digest
    assert (await client.list_versions("bob"))[0].kind == "import"
    mine, theirs = [await client.generate("My dog", user_id=user, sampling=GREEDY) for user in ("ann", "bob")]
    assert mine.choices[0].token_ids == theirs.choices[0].token_ids


async def test_one_servers_export_is_another_servers_import(client, ann, server, open_server, tmp_path):
    async with open_server(url=f"sqlite://{tmp_path}/other.db") as other, connect(other) as far:
        await far.import_memory("ann", client.export_memory("ann", version=1))
        assert (await far.get_memory("ann")).state_digest == ann[0].state_digest


async def test_files_that_must_not_come_in_are_refused_by_their_status(client, ann):
    file = await exported(client, passphrase="correct horse")
    damaged = bytearray(await exported(client))
    damaged[-1] ^= 1
    for content, passphrase, error in (
        ([file], "wrong horse!", PermissionDenied),
        ([file], None, PermissionDenied),
        ([file[:-1]], "correct horse", CorruptMemory),
        ([bytes(damaged)], None, CorruptMemory),
        ([b"PK\x03\x04 and no memory"], None, CorruptMemory),
        ([], None, CorruptMemory),
    ):
        with pytest.raises(error):
            await client.import_memory("bob", content, passphrase=passphrase)
    with pytest.raises(VersionConflict):
        await client.import_memory("ann", [file], passphrase="correct horse")
    with pytest.raises(InvalidRequest, match=r"passphrase.*5 is outside \[8, 1024\]"):
        await exported(client, passphrase="short")
    with pytest.raises(NotFound):
        await exported(client, "nobody")
    with pytest.raises(NotFound):
        await client.get_memory("bob")


async def test_a_sealed_file_that_the_model_could_not_run_is_refused_before_it_is_kept(client, server):
    """Whoever knows the format can seal anything: the model's own shapes and finite numbers are asked for as well."""
    codec = server.service.memories.codec
    good, _ = codec.of_memory(codec.blank(), None, {"adapts": 1})
    name = next(iter(good.tensors))
    inf = bytes(TensorBytes(dtype="float16", shape=(1,), data=b"\x00\x7c").data)
    for tensors, counters, said in (
        (dict(list(good.tensors.items())[1:]), good.counters, name),
        (good.tensors | {"9.delta.inner": good.tensors[name]}, good.counters, "9.delta.inner"),
        (good.tensors | {name: TensorBytes(dtype="float16", shape=(2,), data=bytes(4))}, good.counters, r"\(2,\)"),
        (good.tensors | {name: _filled(good.tensors[name], inf)}, good.counters, "not numbers"),
        (good.tensors, {"adapts": 1}, "tokens"),
        (good.tensors, {"tokens": -3}, "-3"),
    ):
        snapshot = Snapshot(fingerprint=good.fingerprint, schema=1, tensors=tensors, counters=counters)
        portable = Portable(snapshot=snapshot, sources=(), version=1, exported_at=time.time())
        with pytest.raises(FailedPrecondition, match=said):
            await client.import_memory("bob", write_portable(portable, None))
    with pytest.raises(NotFound):
        await client.get_memory("bob")


async def test_an_import_says_first_whose_it_is_and_does_not_stall(channel, client, open_server):
    start = memory_pb2.ImportMemoryRequest(start=memory_pb2.ImportStart(user_id="bob", request_id="r"))
    content = memory_pb2.ImportMemoryRequest(content=b"HOPEMEM1")
    for messages, said in (([], "start"), ([content], "start"), ([start, start], "content")):
        error = await _refused(channel, [message.SerializeToString() for message in messages])
        assert (error.code(), said in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    error = await _refused(channel, [b"\xff\xff"])
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT

    async def stalled():
        await asyncio.sleep(60)
        yield b"too late"

    async with open_server(write_timeout_seconds=0.2) as impatient, connect(impatient) as far:
        with pytest.raises(Exhausted, match=r"sent nothing for write_timeout_seconds 0\.2"):
            await far.import_memory("bob", stalled())
    await client.generate("the server lives")


async def test_a_warm_memory_is_not_fetched_again(open_server):
    async with open_server() as server, connect(server) as client:
        version = (await client.adapt("ann", LESSON)).version
    async with open_server() as server, connect(server) as client:
        assert _restored(server) == 0
        first, again = await client.warm_memory("ann"), await client.warm_memory("ann", min_version=version)
        assert (first.version, first.was_warm, again.version, again.was_warm) == (version, False, version, True)
        await client.generate("My dog", user_id="ann", sampling=GREEDY)
        assert _restored(server) == 1
        nobody = await client.warm_memory("nobody")
        assert (nobody.version, nobody.was_warm) == (0, False)
        with pytest.raises(NotFound, match="min_version is 9"):
            await client.warm_memory("ann", min_version=9)
        with pytest.raises(InvalidRequest, match="min_version"):
            await client.warm_memory("ann", min_version=0)


BAD = (
    ("ForkMemory", {"user_id": "ann", "target_user_id": "bob"}, "request_id"),
    ("ForkMemory", {"user_id": "ann", "target_user_id": "bob", "request_id": "x" * 65}, "request_id.*64"),
    ("ForkMemory", {"user_id": "ann", "request_id": "r"}, "target_user_id"),
    ("ForkMemory", {"user_id": "ann", "target_user_id": "b\0b", "request_id": "r"}, "target_user_id.*unprintable"),
    ("ForkMemory", {"target_user_id": "bob", "request_id": "r"}, "user_id"),
    ("ForkMemory", {"user_id": "ann", "target_user_id": "bob", "request_id": "r", "version": -1}, "version.*-1"),
    ("EvaluateMemory", {"probes": [{"continuation": {"text": "x"}}]}, "user_id"),
    ("EvaluateMemory", {"user_id": "ann", "probes": [{}]}, r"probes\[0\].continuation.content.*nothing is set"),
    ("ExportMemory", {}, "user_id"),
    ("ExportMemory", {"user_id": "ann", "version": 0}, "version.*0"),
    ("ExportMemory", {"user_id": "ann", "passphrase": ""}, "passphrase.*0"),
    ("ExportMemory", {"user_id": "ann", "passphrase": "x" * 1025}, "passphrase.*1025"),
    ("ImportMemory", {"start": {"user_id": "bob"}}, "start.request_id"),
    ("ImportMemory", {"start": {"request_id": "r"}}, "user_id"),
    ("ImportMemory", {"start": {"user_id": "bob", "request_id": "r", "passphrase": "x"}}, "passphrase"),
    ("WarmMemory", {}, "user_id"),
    ("WarmMemory", {"user_id": "ann", "min_version": 2**62 + 1}, "min_version"),
)


async def test_bad_fields_are_named_and_the_next_good_call_is_served(channel, client):
    await client.adapt("ann", LESSON)
    stub = MemoryServiceStub(channel)
    for method, fields, said in BAD:
        request = getattr(memory_pb2, f"{method}Request")(**fields)
        call = getattr(stub, method)(iter([request]) if method == "ImportMemory" else request)
        with pytest.raises(grpc.aio.AioRpcError, match=said) as refused:
            await (call.read() if method == "ExportMemory" else call)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await client.warm_memory("ann")).version == 1


async def test_streamed_calls_are_counted_like_all_others(client, server, ann):
    await client.import_memory("bob", [await exported(client)])
    with pytest.raises(CorruptMemory):
        await client.import_memory("carl", [b"nothing of ours"])
    for method, code in (("ExportMemory", "OK"), ("ImportMemory", "OK"), ("ImportMemory", "DATA_LOSS")):
        await until_counted(server, method, code)


def _restored(server):
    registry = server.service.memories._metrics.registry
    return registry.get_sample_value("hope_memory_restore_seconds_count", {"tier": "store"}) or 0


def _filled(tensor: TensorBytes, value: bytes) -> TensorBytes:
    return TensorBytes(dtype=tensor.dtype, shape=tensor.shape, data=value * (tensor.num_bytes // len(value)))


async def _refused(channel, messages) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.stream_unary("/hope.v1.MemoryService/ImportMemory")(iter(messages))
    assert not isinstance(refused.value, HopeError)
    return refused.value
