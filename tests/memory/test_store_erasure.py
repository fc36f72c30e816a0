"""Erased is erased: for every pod, every session, and every writer who is late."""

import asyncio

import pytest
from support.store_memories import (
    ALICE,
    BOB,
    MODEL,
    content,
    small,
    step,
    write_versions,
)

from hope_serve.errors import NotFound
from hope_serve.memory.snapshot import Snapshot, TensorBytes
from hope_serve.memory.store import Gone, Head, StoredSession


async def test_erasing_removes_memory_sessions_and_every_trace_of_the_bytes(storage, store):
    secrets = [b"what was learned of the user, secret", b"what the user said in one talk, secret"]
    learned, said = (
        Snapshot(
            fingerprint=MODEL,
            schema=1,
            tensors={"t": TensorBytes(dtype="uint8", shape=(len(secret),), data=secret)},
            counters={},
        )
        for secret in secrets
    )
    await store.commit(ALICE, step(0, learned))
    for name in ("one", "two"):
        await store.save_session(ALICE, name, StoredSession(turn=1, base_version=1, snapshot=said), ttl_seconds=60)
    await write_versions(store, BOB, 1)
    owner = store.owner_key(ALICE)
    assert len(await storage.spots("session_chunks", owner)) == 2
    if storage.keys is None:
        assert [_is_in(await storage.everything(), secret) for secret in secrets] == [True, True]
    receipt = await store.erase(ALICE)
    assert (receipt.versions_removed, receipt.sessions_removed) == (1, 2)
    assert [_is_in(await storage.everything(), secret) for secret in secrets] == [False, False]
    for kind in ("chunks", "manifest", "result", "data_key", "session", "session_chunks"):
        assert await storage.spots(kind, owner) == []
    head = await store.head(ALICE)
    assert head == Head(version=2, mark=head.mark, exists=False, updated_at=receipt.erased_at)
    assert await store.load_session(ALICE, "one", fingerprint=MODEL) is None
    assert await store.versions(ALICE) == ()
    with pytest.raises(NotFound):
        await store.load(ALICE, fingerprint=MODEL)
    assert (await store.load(BOB, fingerprint=MODEL)).version == 1
    assert await store.erase(ALICE) == receipt


def _is_in(everything, secret):
    """As it is, or as SQLite writes it out."""
    return secret in everything or secret.hex().upper().encode() in everything


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
