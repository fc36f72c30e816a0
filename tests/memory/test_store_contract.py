"""What every memory store promises."""

import asyncio

import pytest
from support.store_memories import ALICE, BOB, MODEL, OTHER_MODEL, memory, small, step, tensor, write_versions

from hope_serve.api import Durability, Owner, Source
from hope_serve.errors import FailedPrecondition, InvalidRequest, NotFound, RequestIdReused, VersionConflict
from hope_serve.memory.snapshot import Snapshot, TensorBytes, state_digest
from hope_serve.memory.store import Committed, Conflict, Duplicate, Gone, Head, StoredSession


def content(snapshot):
    return {name: (t.dtype, t.shape, bytes(t.data)) for name, t in snapshot.tensors.items()}, dict(snapshot.counters)


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


async def test_the_last_three_versions_can_be_read_and_older_ones_say_so(store):
    await write_versions(store, ALICE, 6)
    for version in (4, 5, 6):
        stored = await store.load(ALICE, fingerprint=MODEL, version=version)
        assert content(stored.snapshot) == content(small(version))
    for version in (1, 3, 7):
        with pytest.raises(NotFound, match="4, 5, 6"):
            await store.load(ALICE, fingerprint=MODEL, version=version)
    assert [r.version for r in await store.versions(ALICE) if r.restorable] == [4, 5, 6]


async def test_dropped_versions_leave_no_chunks_behind(storage, store):
    await write_versions(store, ALICE, 8, make=memory)
    index = store._owners.binding(ALICE).index
    held = await storage.spots("chunks", index)
    per_version = 1 + 3
    assert len(held) == 3 * per_version


async def test_chunks_shared_by_kept_versions_stay(store):
    await store.commit(ALICE, step(0, memory(1)))
    unmoved = frozenset({"level1.delta", "nothing"})
    for version in range(2, 9):
        moved = Snapshot(fingerprint=MODEL, schema=1, tensors={"level0.delta": tensor(version)}, counters={})
        await store.commit(ALICE, step(version - 1, moved, unmoved=unmoved))
    kept = (await store.load(ALICE, fingerprint=MODEL, version=6)).snapshot
    assert bytes(kept.tensors["level1.delta"].data) == bytes(memory(1).tensors["level1.delta"].data)
    assert bytes(kept.tensors["level0.delta"].data) == bytes(tensor(6).data)


async def test_a_rollback_is_a_new_version_with_the_old_content(store):
    await write_versions(store, ALICE, 3, make=memory)
    outcome = await store.rollback(ALICE, to_version=2, expected_version=3, request_id="back")
    assert isinstance(outcome, Committed)
    assert outcome.version == 4
    stored = await store.load(ALICE, fingerprint=MODEL)
    assert (stored.version, stored.about.kind) == (4, "rollback")
    assert content(stored.snapshot) == content(memory(2))
    assert stored.state_digest == state_digest(memory(2))
    assert isinstance(await store.rollback(ALICE, to_version=2, expected_version=3, request_id="back"), Duplicate)
    await write_versions(store, ALICE, 4, first=5, make=memory)
    assert content((await store.load(ALICE, fingerprint=MODEL)).snapshot) == content(memory(8))


async def test_sources_follow_the_content_through_a_rollback(store):
    for version in (1, 2, 3):
        await store.commit(ALICE, step(version - 1, small(version), source=Source(id=f"s{version}")))
    await store.rollback(ALICE, to_version=2, request_id="back")
    await store.commit(ALICE, step(4, small(5), source=Source(id="s5")))
    assert [source.id for source in (await store.describe(ALICE)).sources] == ["s1", "s2", "s5"]


async def test_a_rollback_is_refused_when_the_memory_moved_or_the_version_is_not_kept(store):
    with pytest.raises(NotFound):
        await store.rollback(ALICE, to_version=1, request_id="a")
    await write_versions(store, ALICE, 5)
    with pytest.raises(VersionConflict) as error:
        await store.rollback(ALICE, to_version=4, expected_version=4, request_id="b")
    assert error.value.head == 5
    with pytest.raises(NotFound):
        await store.rollback(ALICE, to_version=1, request_id="c")
    assert (await store.head(ALICE)).version == 5


async def test_a_memory_of_another_model_is_refused_by_name_and_left_alone(store):
    await write_versions(store, ALICE, 1)
    with pytest.raises(FailedPrecondition, match=f"{MODEL}.*{OTHER_MODEL}"):
        await store.load(ALICE, fingerprint=OTHER_MODEL)
    with pytest.raises(FailedPrecondition, match=f"{MODEL}.*{OTHER_MODEL}"):
        await store.commit(ALICE, step(1, small(2, fingerprint=OTHER_MODEL)))
    assert content((await store.load(ALICE, fingerprint=MODEL)).snapshot) == content(small(1))


async def test_erasing_removes_memory_sessions_and_every_trace_of_the_bytes(storage, store):
    secret = b"the user's own secret, sixty-four bytes of it, to be found later"
    given = Snapshot(
        fingerprint=MODEL, schema=1, tensors={"t": TensorBytes(dtype="uint8", shape=(64,), data=secret)}, counters={}
    )
    await store.commit(ALICE, step(0, given))
    await store.save_session(ALICE, "s", session(1, base=1), ttl_seconds=60)
    await write_versions(store, BOB, 1)
    receipt = await store.erase(ALICE)
    assert (receipt.versions_removed, receipt.sessions_removed) == (1, 1)
    assert secret not in await storage.everything()
    head = await store.head(ALICE)
    assert head == Head(version=2, mark=head.mark, exists=False, updated_at=receipt.erased_at)
    assert await store.load_session(ALICE, "s", fingerprint=MODEL) is None
    assert await store.versions(ALICE) == ()
    with pytest.raises(NotFound):
        await store.load(ALICE, fingerprint=MODEL)
    assert (await store.load(BOB, fingerprint=MODEL)).version == 1
    assert await store.erase(ALICE) == receipt


async def test_an_erasure_is_told_to_every_pod_that_listens(request, storage, store):
    if "sqlite" in request.node.name:
        pods = [store]
    else:
        pods = [store, await storage.store()]
    heard = [asyncio.Queue() for _ in pods]
    for pod, queue in zip(pods, heard, strict=True):
        pod.on_erased(queue.put_nowait)
    await asyncio.sleep(0.05)
    await write_versions(store, ALICE, 1)
    await store.erase(ALICE)
    for pod, queue in zip(pods, heard, strict=True):
        while (told := await asyncio.wait_for(queue.get(), 5)) is None:
            pass
        assert told == pod.owner_key(ALICE)


async def test_erasing_what_never_was_is_not_found(store):
    with pytest.raises(NotFound):
        await store.erase(ALICE)


async def test_a_writer_who_read_before_the_erasure_is_told_that_it_is_gone(storage, store):
    await write_versions(store, ALICE, 2)
    stale = await storage.store()
    await stale.load(ALICE, fingerprint=MODEL)
    await stale.commit(ALICE, step(2, small(3)))
    await store.erase(ALICE)
    assert isinstance(await stale.commit(ALICE, step(3, small(4), request_id="stale")), Gone)
    assert isinstance(await store.commit(ALICE, step(0, small(4), request_id="older")), Gone)
    assert not (await store.head(ALICE)).exists


async def test_a_request_from_before_the_erasure_is_not_applied_again_after_it(store):
    await store.commit(ALICE, step(0, small(1), request_id="r1"))
    await store.erase(ALICE)
    base = (await store.head(ALICE)).version
    assert isinstance(await store.commit(ALICE, step(base, small(1), request_id="r1")), Gone)
    assert await store.find_request(ALICE, "r1", "d") is None


async def test_an_erased_owner_can_begin_anew_and_versions_never_repeat(store):
    await write_versions(store, ALICE, 3)
    await store.erase(ALICE)
    base = (await store.head(ALICE)).version
    outcome = await store.commit(ALICE, step(base, small(9), request_id="new"))
    assert outcome.version == base + 1 == 5
    assert content((await store.load(ALICE, fingerprint=MODEL)).snapshot) == content(small(9))
    assert [r.version for r in await store.versions(ALICE)] == [5]
    again = await store.erase(ALICE)
    assert again.versions_removed == 1


async def test_owners_are_listed_by_tenant_page_by_page(store):
    names = {f"user-{i}" for i in range(7)}
    for name in names:
        await write_versions(store, Owner(tenant="acme", user=name), 1)
    await write_versions(store, Owner(tenant="other", user="stranger"), 1)
    await store.erase(Owner(tenant="acme", user="user-3"))
    seen, token = [], ""
    while True:
        page, token = await store.list_owners("acme", page_size=3, page_token=token)
        seen += [summary.user for summary in page]
        if not token:
            break
    assert sorted(seen) == sorted(names - {"user-3"})
    assert [summary.user for summary in (await store.list_owners("other"))[0]] == ["stranger"]


def session(turn, *, base=0, seed=None):
    return StoredSession(turn=turn, base_version=base, snapshot=memory(seed if seed is not None else turn))


async def test_a_conversation_comes_back_bit_for_bit_with_its_turn(store):
    assert await store.load_session(ALICE, "chat", fingerprint=MODEL) is None
    for turn in (1, 2):
        await store.save_session(ALICE, "chat", session(turn, base=3), ttl_seconds=60)
    stored = await store.load_session(ALICE, "chat", fingerprint=MODEL)
    assert (stored.turn, stored.base_version) == (2, 3)
    assert content(stored.snapshot) == content(memory(2))
    assert await store.load_session(BOB, "chat", fingerprint=MODEL) is None
    with pytest.raises(FailedPrecondition):
        await store.load_session(ALICE, "chat", fingerprint=OTHER_MODEL)


async def test_the_second_of_two_concurrent_turns_is_a_conflict(storage, store):
    other = await storage.store()
    await store.save_session(ALICE, "chat", session(1), ttl_seconds=60)
    results = await asyncio.gather(
        store.save_session(ALICE, "chat", session(2, seed=21), ttl_seconds=60),
        other.save_session(ALICE, "chat", session(2, seed=22), ttl_seconds=60),
        return_exceptions=True,
    )
    conflicts = [error for error in results if error is not None]
    assert [type(error) for error in conflicts] == [VersionConflict]
    assert conflicts[0].head == 2
    winner = 21 if results[0] is None else 22
    assert content((await store.load_session(ALICE, "chat", fingerprint=MODEL)).snapshot) == content(memory(winner))


async def test_a_conversation_expires_and_can_be_deleted(store):
    await store.save_session(ALICE, "short", session(1), ttl_seconds=0.05)
    await store.save_session(ALICE, "long", session(1), ttl_seconds=60)
    await asyncio.sleep(0.08)
    assert await store.load_session(ALICE, "short", fingerprint=MODEL) is None
    await store.save_session(ALICE, "short", session(1), ttl_seconds=60)
    assert await store.delete_session(ALICE, "long")
    assert not await store.delete_session(ALICE, "long")
    with pytest.raises(VersionConflict):
        await store.save_session(ALICE, "long", session(2), ttl_seconds=60)


async def test_a_turn_that_began_before_the_erasure_is_not_kept(store):
    await write_versions(store, ALICE, 2)
    await store.erase(ALICE)
    with pytest.raises(FailedPrecondition):
        await store.save_session(ALICE, "chat", session(1, base=2), ttl_seconds=60)
    await store.save_session(ALICE, "chat", session(1, base=3), ttl_seconds=60)
    assert (await store.load_session(ALICE, "chat", fingerprint=MODEL)).turn == 1


HOSTILE = [
    "}{",
    "{u}",
    "a\0b",
    "../../etc/passwd",
    "*",
    "' OR 1=1 --",
    "\r\nFLUSHALL\r\n",
    "аlice",  # noqa: RUF001 the first letter is Cyrillic
    "alice ",
    "ALICE",
    "é",
    "e\u0301",
    "\u202eecila",
    "x" * 256,
    "alice",
]


def accepted(tenant, user):
    try:
        return Owner(tenant=tenant, user=user)
    except InvalidRequest:
        return None


async def test_hostile_user_ids_are_isolated_from_each_other(storage, store):
    owners = [owner for name in HOSTILE for tenant in ("acme", "acme\0a") if (owner := accepted(tenant, name))]
    assert len(owners) > len(HOSTILE)
    for number, owner in enumerate(owners):
        await store.commit(owner, step(0, small(number)))
    for number, owner in enumerate(owners):
        assert (await store.load(owner, fingerprint=MODEL)).snapshot.counters["tokens_learned"] == number
    listed = (await store.list_owners("acme", page_size=1000))[0]
    assert sorted(summary.user for summary in listed) == sorted(o.user for o in owners if o.tenant == "acme")


def _unchecked(user):
    """An owner as a caller without the check of ``Owner`` would name it."""
    owner = Owner(tenant="acme", user="a")
    object.__setattr__(owner, "user", user)
    return owner


@pytest.mark.parametrize("user", ["", "x" * 65536, "\ud800"])
async def test_user_ids_that_cannot_be_kept_are_refused(store, user):
    with pytest.raises(InvalidRequest, match="user_id"):
        await store.commit(_unchecked(user), step(0, small(1)))


async def test_two_ids_never_share_a_key(store):
    owners = [Owner(tenant=t, user=u) for t in ("a", "ab", "a\0", "a\0b", "") for u in ("b", "bb", "ab", "0b") if t]
    indexes = {store._owners.binding(owner).index for owner in owners}
    assert len(indexes) == len(owners)
    assert all(len(index) == 32 and set(index) <= set("0123456789abcdef") for index in indexes)


async def test_user_and_request_ids_never_appear_in_an_encrypted_store(storage):
    if storage.keys is None:
        pytest.skip("names are readable without a key")
    store = await storage.store()
    owner = Owner(tenant="tenant-in-plain-sight", user="user-in-plain-sight")
    given = Snapshot(fingerprint=MODEL, schema=1, tensors={}, counters={"note": "counter-in-plain-sight"})
    await store.commit(
        owner, step(0, given, request_id="request-in-plain-sight", source=Source(uri="uri-in-plain-sight"))
    )
    assert b"in-plain-sight" not in await storage.everything()


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
