"""Memories on the move: forked, exported, imported, carried from one store to another."""

import pytest
from support.store_memories import ALICE, BOB, MODEL, OTHER_MODEL, memory, small, step, tensor, write_versions
from support.store_sqlite import SqliteStorage

from hope_serve.api import Owner, Source
from hope_serve.errors import (
    CorruptMemory,
    FailedPrecondition,
    HopeError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestIdReused,
    VersionConflict,
)
from hope_serve.memory.keys import new_key, single_key
from hope_serve.memory.moving import copy_memories
from hope_serve.memory.snapshot import Snapshot, state_digest
from hope_serve.memory.store import Committed, Duplicate
from hope_serve.memory.transfer import export_memory, fork_memory, import_memory


async def pieces(content, size=1000):
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def exported(store, owner, **options):
    return b"".join([piece async for piece in export_memory(store, owner, fingerprint=MODEL, **options)])


async def taught(store, owner, count=3):
    for version in range(1, count + 1):
        source = Source(id=f"s{version}")
        await store.commit(owner, step(version - 1, memory(version), source=source))


async def test_a_fork_has_the_content_and_the_sources_and_then_a_life_of_its_own(store):
    await taught(store, ALICE)
    outcome = await fork_memory(store, ALICE, BOB, fingerprint=MODEL, request_id="fork")
    assert outcome.version == 1
    assert (await store.load(BOB, fingerprint=MODEL)).state_digest == state_digest(memory(3))
    await store.commit(BOB, step(1, memory(9), source=Source(id="own")))
    assert [source.id for source in (await store.describe(BOB)).sources] == ["s1", "s2", "s3", "own"]
    await store.erase(ALICE)
    assert (await store.load(BOB, fingerprint=MODEL, version=1)).state_digest == state_digest(memory(3))


async def test_a_fork_writes_only_what_it_changes_afterwards(store):
    await taught(store, ALICE, 1)
    await fork_memory(store, ALICE, BOB, fingerprint=MODEL, request_id="fork")
    moved = Snapshot(fingerprint=MODEL, schema=1, tensors={"level0.delta": tensor("new")}, counters={})
    outcome = await store.commit(BOB, step(1, moved, unmoved=frozenset({"level1.delta", "nothing"})))
    assert outcome.bytes_written < 10_000


async def test_a_fork_of_an_earlier_version_is_made_once_however_often_it_is_asked_for(store):
    await taught(store, ALICE)
    for expected in (Committed, Duplicate, Duplicate):
        outcome = await fork_memory(store, ALICE, BOB, fingerprint=MODEL, request_id="fork", version=2)
        assert isinstance(outcome, expected)
    with pytest.raises(RequestIdReused):
        await fork_memory(store, ALICE, BOB, fingerprint=MODEL, request_id="fork", version=3)
    assert (await store.load(BOB, fingerprint=MODEL)).state_digest == state_digest(memory(2))


async def test_a_fork_onto_a_memory_or_across_tenants_is_refused(store):
    await taught(store, ALICE, 1)
    await write_versions(store, BOB, 1)
    with pytest.raises(VersionConflict, match="erase"):
        await fork_memory(store, ALICE, BOB, fingerprint=MODEL, request_id="fork")
    for target in (ALICE, Owner(tenant="other", user="bob")):
        with pytest.raises(InvalidRequest):
            await fork_memory(store, ALICE, target, fingerprint=MODEL, request_id="fork")
    with pytest.raises(NotFound):
        await fork_memory(store, Owner(tenant="acme", user="nobody"), BOB, fingerprint=MODEL, request_id="fork")


@pytest.mark.parametrize("passphrase", [None, "correct horse battery staple"])
async def test_a_file_carries_a_memory_bit_for_bit(store, passphrase):
    await taught(store, ALICE)
    file = await exported(store, ALICE, passphrase=passphrase)
    if passphrase:
        assert bytes(memory(3).tensors["level0.delta"].data) not in file
        assert b"tokens_learned" not in file
    for expected in (Committed, Duplicate):
        outcome = await import_memory(
            store, BOB, pieces(file), fingerprint=MODEL, request_id="import", passphrase=passphrase
        )
        assert isinstance(outcome, expected)
    stored = await store.load(BOB, fingerprint=MODEL)
    assert (stored.state_digest, stored.about.kind) == (state_digest(memory(3)), "import")
    assert [source.id for source in (await store.describe(BOB)).sources] == ["s1", "s2", "s3"]


async def test_a_file_is_refused_by_another_model_a_wrong_passphrase_and_a_user_with_a_memory(store):
    await taught(store, ALICE, 1)
    file = await exported(store, ALICE, passphrase="right")
    with pytest.raises(FailedPrecondition, match=f"{MODEL}.*{OTHER_MODEL}"):
        await import_memory(store, BOB, pieces(file), fingerprint=OTHER_MODEL, request_id="i", passphrase="right")
    for passphrase in ("wrong", None):
        with pytest.raises(PermissionDenied, match="passphrase"):
            await import_memory(store, BOB, pieces(file), fingerprint=MODEL, request_id="i", passphrase=passphrase)
    with pytest.raises(VersionConflict):
        await import_memory(store, ALICE, pieces(file), fingerprint=MODEL, request_id="i", passphrase="right")
    assert not (await store.head(BOB)).exists


async def test_a_damaged_file_is_never_imported(tmp_path):
    storage = SqliteStorage(tmp_path)
    store = await storage.store()
    await store.commit(ALICE, step(0, small(1)))
    file = await exported(store, ALICE)
    damaged = [file[:cut] for cut in range(0, len(file), 7)]
    damaged += [file + b"x", b"", b"PK\x03\x04" + file]
    for bit in range(0, 8 * len(file), 5):
        flipped = bytearray(file)
        flipped[bit // 8] ^= 1 << (bit % 8)
        damaged.append(bytes(flipped))
    for content in damaged:
        with pytest.raises((CorruptMemory, FailedPrecondition, PermissionDenied)):
            await import_memory(store, BOB, pieces(content), fingerprint=MODEL, request_id="i")
    assert not (await store.head(BOB)).exists
    await storage.close()


async def test_frames_of_another_file_do_not_fit(store):
    await store.commit(ALICE, step(0, small(1)))
    one, two = await exported(store, ALICE), await exported(store, ALICE)
    tail = 4 + 33 + 64
    with pytest.raises(CorruptMemory):
        await import_memory(store, BOB, pieces(one[:-tail] + two[-tail:]), fingerprint=MODEL, request_id="i")


async def test_a_store_is_moved_with_versions_request_ids_and_contents(storage, store, tmp_path):
    other = SqliteStorage(tmp_path / "other", single_key(new_key(), encrypts=True))
    other.path.parent.mkdir()
    target = await other.store()
    for version in range(1, 7):
        await store.commit(ALICE, step(version - 1, memory(version), source=Source(id=f"s{version}")))
    await store.rollback(ALICE, to_version=5, request_id="back")
    await write_versions(store, BOB, 2)
    await store.erase(BOB)
    await write_versions(store, Owner(tenant="other", user="carol"), 1)
    moved = await copy_memories(store, target)
    assert (moved.memories, moved.present) == (2, 0)
    assert (await copy_memories(store, target)).present == 2
    assert await target.versions(ALICE) == await store.versions(ALICE)
    for version in (5, 6, 7):
        one, two = [await s.load(ALICE, fingerprint=MODEL, version=version) for s in (store, target)]
        assert one.state_digest == two.state_digest == state_digest(two.snapshot)
    assert await target.find_request(ALICE, "request-2", "d") == Duplicate(version=3, result=b"result of 2")
    with pytest.raises(RequestIdReused):
        await target.commit(ALICE, step(7, memory(8), request_id="request-2", digest="other"))
    assert (await target.describe(ALICE)).sources == (await store.describe(ALICE)).sources
    assert (await target.commit(ALICE, step(7, memory(8)))).version == 8
    with pytest.raises(VersionConflict, match="alice"):
        await copy_memories(store, target)
    await other.close()


async def test_a_move_that_was_broken_off_is_taken_up_again(store, tmp_path):
    other = SqliteStorage(tmp_path / "other")
    other.path.parent.mkdir()
    target = await other.store()
    await write_versions(store, ALICE, 8)
    chapters = [chapter async for chapter in store.history.read(ALICE, after=0)]
    for chapter in chapters[:4]:
        await target.history.write(ALICE, chapter)
    await target.close()
    target = await other.store()
    assert (await copy_memories(store, target)).memories == 1
    assert await target.versions(ALICE) == await store.versions(ALICE)
    assert (await target.load(ALICE, fingerprint=MODEL)).version == 8
    await other.close()


async def test_errors_of_an_export_come_before_the_first_byte(store):
    with pytest.raises(HopeError):
        async for _ in export_memory(store, ALICE, fingerprint=MODEL):
            pytest.fail("nothing was there to export")
