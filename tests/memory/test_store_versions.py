"""Versions that are kept, dropped, and gone back to."""

import pytest
from support.store_memories import (
    ALICE,
    MODEL,
    OTHER_MODEL,
    content,
    memory,
    small,
    step,
    tensor,
    write_versions,
)

from hope_serve.api import Source
from hope_serve.errors import FailedPrecondition, NotFound, VersionConflict
from hope_serve.memory.snapshot import Snapshot, state_digest
from hope_serve.memory.store import Committed, Duplicate


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
