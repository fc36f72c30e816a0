"""MemoryService through a real client."""

from __future__ import annotations

import grpc
import pytest

from hope_serve.api import MemoryChoice, OnMissing, SamplingParams, SessionOutcome
from hope_serve.errors import NotFound, VersionConflict
from hope_serve.pb.hope.v1 import memory_pb2
from hope_serve.pb.hope.v1.memory_pb2_grpc import MemoryServiceStub

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


@pytest.fixture
async def ann(client):
    """Two versions of a memory."""
    first = await client.adapt("ann", "My dog is called Biscuit. " * 8, request_id="one")
    second = await client.adapt("ann", "I like tea without sugar. " * 8, request_id="two")
    return first, second


async def test_versions_are_listed_with_what_made_them(client, ann):
    versions = await client.list_versions("ann")
    assert [(v.version, v.base_version, v.kind, v.request_id) for v in versions] == [
        (1, 0, "adapt", "one"),
        (2, 1, "adapt", "two"),
    ]
    assert all(v.restorable and v.created_at > 1e9 for v in versions)


async def test_a_rollback_is_a_new_version_with_the_old_content(client, ann):
    version = await client.rollback_memory("ann", 1, expected_version=2, request_id="back")
    assert version == 3
    assert await client.rollback_memory("ann", 1, expected_version=2, request_id="back") == 3
    assert (await client.get_memory("ann")).state_digest == ann[0].state_digest
    assert (await client.list_versions("ann"))[-1].kind == "rollback"
    with pytest.raises(VersionConflict) as conflict:
        await client.rollback_memory("ann", 1, expected_version=2)
    assert conflict.value.head == 3


async def test_older_versions_can_be_described_and_read(client, ann):
    assert (await client.get_memory("ann", version=1)).state_digest == ann[0].state_digest
    old = await client.generate("My dog", user_id="ann", memory=MemoryChoice(exact_version=1), sampling=GREEDY)
    assert old.started.memory_version == 1


async def test_memories_are_listed_page_by_page(client):
    for i in range(5):
        await client.adapt(f"user{i}", "tea")
    assert {line.user async for line in client.list_memories(page_size=2)} == {f"user{i}" for i in range(5)}


async def test_a_page_token_that_was_made_up_or_cut_is_no_other_page(channel, client):
    for i in range(3):
        await client.adapt(f"user{i}", "tea")
    stub = MemoryServiceStub(channel)
    first = await stub.ListMemories(memory_pb2.ListMemoriesRequest(page_size=2))
    second = await stub.ListMemories(memory_pb2.ListMemoriesRequest(page_token=first.next_page_token))
    assert (len(first.memories), len(second.memories), second.next_page_token) == (2, 1, "")
    for token in ("x", first.next_page_token[:-1], "." + first.next_page_token, "x" * 5000):
        with pytest.raises(grpc.aio.AioRpcError, match="page_token"):
            await stub.ListMemories(memory_pb2.ListMemoriesRequest(page_token=token))


async def test_a_deleted_memory_is_gone_with_its_sessions(client, ann):
    await client.generate("My dog", user_id="ann", session_id="s", sampling=GREEDY)
    receipt = await client.delete_memory("ann")
    assert (receipt.versions_removed, receipt.sessions_removed) == (2, 1)
    assert (await client.delete_memory("ann")).receipt_id == receipt.receipt_id
    with pytest.raises(NotFound):
        await client.get_memory("ann")
    again = await client.generate("My dog", user_id="ann", session_id="s", sampling=GREEDY)
    assert (again.started.memory_version, again.started.session) == (0, SessionOutcome.FRESH)
    with pytest.raises(NotFound):
        await client.generate("My dog", user_id="ann", memory=MemoryChoice(on_missing=OnMissing.FAIL), sampling=GREEDY)
