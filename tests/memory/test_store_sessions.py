"""Conversations at rest."""

import asyncio

import pytest
from support.store_memories import (
    ALICE,
    BOB,
    MODEL,
    OTHER_MODEL,
    content,
    memory,
    session,
    write_versions,
)

from hope_serve.errors import FailedPrecondition, VersionConflict


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
