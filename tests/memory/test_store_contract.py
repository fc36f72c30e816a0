"""What every memory store promises: commits that happen exactly once, and come back bit for bit."""

import asyncio

import pytest
from support.store_memories import (
    ALICE,
    BOB,
    MODEL,
    content,
    memory,
    small,
    step,
    tensor,
    write_versions,
)

from hope_serve.api import Durability, Source
from hope_serve.errors import NotFound, RequestIdReused
from hope_serve.memory.snapshot import Snapshot, TensorBytes, state_digest
from hope_serve.memory.store import Committed, Conflict, Duplicate, Head


async def test_a_new_owner_has_version_0_and_no_memory(store):
    assert await store.head(ALICE) == Head(version=0, exists=False)
    assert await store.versions(ALICE) == ()
    assert await store.find_request(ALICE, "r", "d") is None
    with pytest.raises(NotFound):
        await store.load(ALICE, fingerprint=MODEL)


async def test_a_commit_comes_back_bit_for_bit_and_with_its_digest(store):
    given = memory(1)
    outcome = await store.commit(ALICE, step(0, given, source=Source(id="s1", uri="file:a", time=5.0)))
    assert isinstance(outcome, Committed)
    stored = await store.load(ALICE, fingerprint=MODEL)
    assert (stored.version, content(stored.snapshot)) == (1, content(given))
    assert outcome.state_digest == stored.state_digest == state_digest(given) == state_digest(stored.snapshot)
    assert stored.about.source.id == "s1"
    head = await store.head(ALICE)
    assert (head.version, head.exists, head.num_bytes) == (1, True, given.num_bytes)
    assert head.updated_at == stored.about.created_at


async def test_a_memory_survives_closing_the_store(storage, store):
    await write_versions(store, ALICE, 2, make=memory)
    await store.close()
    again = await storage.store()
    assert content((await again.load(ALICE, fingerprint=MODEL)).snapshot) == content(memory(2))


async def test_versions_are_consecutive_and_told_with_their_source(store):
    for version in (1, 2, 3):
        source = Source(id=f"source-{version}")
        await store.commit(ALICE, step(version - 1, small(version), source=source))
    reports = await store.versions(ALICE)
    assert [(r.version, r.base_version, r.source.id, r.kind) for r in reports] == [
        (1, 0, "source-1", "adapt"),
        (2, 1, "source-2", "adapt"),
        (3, 2, "source-3", "adapt"),
    ]
    assert [r.request_id for r in reports] == ["request-0", "request-1", "request-2"]
    described = await store.describe(ALICE)
    assert [source.id for source in described.sources] == ["source-1", "source-2", "source-3"]
    assert described.counters == {"tokens_learned": 3}


async def test_a_repeated_request_gets_its_first_reply_and_is_not_applied_again(store):
    first = await store.commit(ALICE, step(0, small(1), request_id="r1"))
    await store.commit(ALICE, step(1, small(2), request_id="r2"))
    for base in (0, 1, 2):
        again = await store.commit(ALICE, step(base, small(9), request_id="r1"))
        assert again == Duplicate(version=first.version, result=b"result of r1")
    assert await store.find_request(ALICE, "r1", "d") == Duplicate(version=1, result=b"result of r1")
    assert (await store.head(ALICE)).version == 2


async def test_a_repeated_request_is_known_to_another_pod(storage, store):
    await store.commit(ALICE, step(0, small(1), request_id="r1"))
    other = await storage.store()
    assert await other.commit(ALICE, step(0, small(1), request_id="r1")) == Duplicate(version=1, result=b"result of r1")


async def test_a_request_id_with_another_payload_is_refused(store):
    await store.commit(ALICE, step(0, small(1), request_id="r1", digest="one"))
    with pytest.raises(RequestIdReused):
        await store.commit(ALICE, step(1, small(2), request_id="r1", digest="two"))
    with pytest.raises(RequestIdReused):
        await store.commit(ALICE, step(0, small(2), request_id="r1", digest="two"))
    with pytest.raises(RequestIdReused):
        await store.find_request(ALICE, "r1", "two")
    assert (await store.head(ALICE)).version == 1


async def test_two_owners_may_use_the_same_request_id(store):
    for owner in (ALICE, BOB):
        assert isinstance(await store.commit(owner, step(0, small(1), request_id="same")), Committed)


async def test_a_commit_on_a_passed_version_is_a_conflict_and_changes_nothing(storage, store):
    other = await storage.store()
    await write_versions(store, ALICE, 2)
    outcome = await other.commit(ALICE, step(1, small(7), request_id="late"))
    assert isinstance(outcome, Conflict)
    assert outcome.head.version == 2
    assert content((await other.load(ALICE, fingerprint=MODEL)).snapshot) == content(small(2))


async def test_an_equal_number_with_another_mark_is_another_version(storage, store):
    first = await store.commit(ALICE, step(0, small(1)))
    assert first.mark
    assert first.mark == (await store.head(ALICE)).mark == (await store.load(ALICE, fingerprint=MODEL)).mark
    for pod in (store, await storage.store()):
        outcome = await pod.commit(ALICE, step(1, small(2), request_id="x", base_mark="of a version that was lost"))
        assert isinstance(outcome, Conflict)
        assert outcome.head.mark == first.mark
    second = await store.commit(ALICE, step(1, small(2), request_id="x", base_mark=first.mark))
    assert isinstance(second, Committed)
    assert second.mark not in ("", first.mark)


async def test_a_commit_on_a_version_that_does_not_exist_yet_is_a_conflict(store):
    outcome = await store.commit(ALICE, step(4, small(1)))
    assert isinstance(outcome, Conflict)
    assert outcome.head.version == 0


async def test_concurrent_commits_of_one_owner_are_applied_one_after_the_other(storage):
    pods = [await storage.store() for _ in range(3)]
    total = 5

    async def learn(pod, name):
        for turn in range(total):
            while True:
                base = (await pod.head(ALICE)).version
                request = step(base, small(base + 1), request_id=f"{name}-{turn}")
                if isinstance(await pod.commit(ALICE, request), Committed):
                    break

    await asyncio.gather(*(learn(pod, name) for name, pod in enumerate(pods)))
    reports = await pods[0].versions(ALICE)
    assert [r.version for r in reports] == list(range(1, 3 * total + 1))
    assert {r.request_id for r in reports} == {f"{name}-{turn}" for name in range(3) for turn in range(total)}


async def test_concurrent_repeats_of_one_request_are_applied_once(storage):
    pods = [await storage.store() for _ in range(4)]
    outcomes = await asyncio.gather(*(pod.commit(ALICE, step(0, small(1), request_id="r")) for pod in pods))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Committed"] + ["Duplicate"] * 3
    assert {outcome.version for outcome in outcomes} == {1}


async def test_an_unmoved_tensor_is_neither_given_nor_written_again(store):
    first = memory(1)
    outcome = await store.commit(ALICE, step(0, first))
    assert outcome.bytes_written > first.num_bytes
    moved = {"level0.delta": tensor("moved")}
    partial = Snapshot(fingerprint=MODEL, schema=1, tensors=moved, counters={"tokens_learned": 2})
    outcome = await store.commit(ALICE, step(1, partial, unmoved=frozenset({"level1.delta", "nothing"})))
    assert outcome.bytes_written < 3 * moved["level0.delta"].num_bytes
    whole = Snapshot(fingerprint=MODEL, schema=1, tensors=dict(first.tensors) | moved, counters=dict(partial.counters))
    stored = await store.load(ALICE, fingerprint=MODEL)
    assert content(stored.snapshot) == content(whole)
    assert outcome.state_digest == stored.state_digest == state_digest(whole)
    assert (await store.head(ALICE)).num_bytes == whole.num_bytes


async def test_a_chunk_that_did_not_change_is_not_written_again(store):
    first = memory(1)
    await store.commit(ALICE, step(0, first))
    data = bytearray(first.tensors["level1.delta"].data)
    data[-1] ^= 1
    edited = dict(first.tensors)
    edited["level1.delta"] = TensorBytes(dtype="uint8", shape=(len(data),), data=bytes(data))
    second = Snapshot(fingerprint=MODEL, schema=1, tensors=edited, counters={})
    outcome = await store.commit(ALICE, step(1, second))
    assert outcome.bytes_written < 4096
    assert content((await store.load(ALICE, fingerprint=MODEL)).snapshot) == content(second)


async def test_an_unmoved_tensor_that_the_base_does_not_hold_is_refused(store):
    await store.commit(ALICE, step(0, small(1)))
    with pytest.raises(ValueError, match="level9"):
        await store.commit(ALICE, step(1, small(2), unmoved=frozenset({"level9"})))
    with pytest.raises(ValueError, match="delta"):
        await store.commit(ALICE, step(1, small(2), unmoved=frozenset({"delta"})))


async def test_large_memories_do_not_hold_up_the_event_loop(store, longest_pause):
    given = [
        Snapshot(fingerprint=MODEL, schema=1, tensors={"big": tensor(number, 16 * 2**20)}, counters={})
        for number in range(3)
    ]
    loaded = []

    async def commit_and_load():
        version = len(loaded)
        assert isinstance(await store.commit(ALICE, step(version, given[version])), Committed)
        loaded.append(await store.load(ALICE, fingerprint=MODEL))

    assert await longest_pause(commit_and_load) < 0.15
    assert [content(memory.snapshot) for memory in loaded] == [content(snapshot) for snapshot in given]


async def test_a_cancelled_commit_is_applied_whole_or_not_at_all(store):
    for attempt in range(20):
        base = (await store.head(ALICE)).version
        request = step(base, memory(attempt), request_id=f"r{attempt}")
        task = asyncio.create_task(store.commit(ALICE, request))
        await asyncio.sleep(attempt * 0.0007)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        settled = await store.commit(ALICE, request)
        assert isinstance(settled, Committed | Duplicate)
        assert settled.version == base + 1
        assert content((await store.load(ALICE, fingerprint=MODEL)).snapshot) == content(memory(attempt))


async def test_a_store_says_how_durable_it_is_and_answers_a_ping(store):
    assert isinstance(store.durability, Durability)
    await store.ping()
    await store.close()
    await store.close()
