"""Damaged, moved, missing and replayed bytes: always an error, never a memory, never anybody else's trouble."""

import itertools
import random

import pytest
from support.store_memories import ALICE, BOB, MODEL, memory, small, step, write_versions

from hope_serve.api import Owner
from hope_serve.errors import CorruptMemory
from hope_serve.memory.store import Committed, Duplicate, StoredSession

CAROL = Owner(tenant="acme", user="carol")
BIT_FLIPS = 2000
CONTENT = ("chunks", "manifest", "about", "data_key", "head_seal")


def index_of(store, owner):
    return store._owners.binding(owner).index


async def loads(store, owner, version=None):
    """Whether the owner's memory can be read; the only other way is CorruptMemory."""
    try:
        await store.load(owner, fingerprint=MODEL, version=version)
    except CorruptMemory:
        return False
    return True


async def current_spots(storage, store, owner, version):
    """The values that reading the current version needs."""
    index = index_of(store, owner)
    spots = [await storage.spots("data_key", index), await storage.spots("head_seal", index)]
    spots.append([spot for spot in await storage.spots("chunks", index) if spot.row[1].startswith(f"{version}-")])
    for kind in ("manifest", "about"):
        spots.append([spot for spot in await storage.spots(kind, index) if spot.row[1] == version])
    return [spot for group in spots for spot in group]


def flipped(value, bit):
    damaged = bytearray(value)
    damaged[bit // 8] ^= 1 << (bit % 8)
    return bytes(damaged)


async def test_every_single_bit_flip_is_detected_and_harms_nobody_else(storage, store):
    rng = random.Random(7)
    for owner in (ALICE, BOB):
        await write_versions(store, owner, 3, make=small)
    spots = await current_spots(storage, store, ALICE, 3)
    assert {spot.kind for spot in spots} == set(CONTENT)
    for number in range(BIT_FLIPS):
        spot = spots[number % len(spots)]
        original = await storage.get(spot)
        bit = rng.randrange(8 * len(original))
        await storage.put(spot, flipped(original, bit))
        assert not await loads(store, ALICE), f"bit {bit} of {spot}"
        await storage.put(spot, original)
        if number % 50 == 0:
            assert await loads(store, BOB)
    assert await loads(store, ALICE)


async def test_truncated_and_missing_values_are_detected(storage, store):
    await write_versions(store, ALICE, 3, make=memory)
    for spot in await current_spots(storage, store, ALICE, 3):
        original = await storage.get(spot)
        for length in (0, 1, len(original) // 2, len(original) - 1):
            await storage.put(spot, original[:length])
            assert not await loads(store, ALICE), f"{spot} cut to {length} bytes"
        await storage.put(spot, original + b"\0")
        assert not await loads(store, ALICE), f"{spot} with a byte more"
        await storage.put(spot, original)
    assert await loads(store, ALICE)
    chunk = (await storage.spots("chunks", index_of(store, ALICE)))[-1]
    await storage.put(chunk, None)
    assert not await loads(store, ALICE)


async def test_values_swapped_between_users_are_detected_by_both(storage, store):
    for owner in (ALICE, BOB, CAROL):
        await write_versions(store, owner, 3, make=memory)
    hers = await current_spots(storage, store, ALICE, 3)
    his = await current_spots(storage, store, BOB, 3)
    for mine, other in zip(hers, his, strict=True):
        one, two = await storage.get(mine), await storage.get(other)
        await storage.put(mine, two)
        await storage.put(other, one)
        assert not await loads(store, ALICE), mine
        assert not await loads(store, BOB), other
        assert await loads(store, CAROL)
        await storage.put(mine, one)
        await storage.put(other, two)
    assert await loads(store, ALICE)
    assert await loads(store, BOB)


async def test_values_swapped_inside_a_memory_are_detected(storage, store):
    await write_versions(store, ALICE, 2, make=memory)
    chunks = await storage.spots("chunks", index_of(store, ALICE))
    for mine, other in itertools.pairwise(chunks):
        one, two = await storage.get(mine), await storage.get(other)
        await storage.put(mine, two)
        await storage.put(other, one)
        read = [await loads(store, ALICE, version) for version in (1, 2)]
        assert not all(read), (mine, other)
        await storage.put(mine, one)
        await storage.put(other, two)


@pytest.mark.parametrize("kind", ["manifest", "about"])
async def test_a_replayed_older_version_is_detected(storage, store, kind):
    await write_versions(store, ALICE, 3)
    rows = await storage.spots(kind, index_of(store, ALICE))
    newest, older = rows[-1], rows[-2]
    await storage.put(newest, await storage.get(older))
    assert not await loads(store, ALICE)


async def test_a_replayed_chunk_of_an_older_version_is_detected(storage, store):
    await write_versions(store, ALICE, 3, make=memory)
    chunks = await storage.spots("chunks", index_of(store, ALICE))
    newest = [spot for spot in chunks if spot.row[1].startswith("3-")]
    for version in (1, 2):
        older = [spot for spot in chunks if spot.row[1].startswith(f"{version}-")]
        for spot, source in zip(newest, older, strict=True):
            original = await storage.get(spot)
            await storage.put(spot, await storage.get(source))
            assert not await loads(store, ALICE), (spot, source)
            assert await loads(store, ALICE, version)
            await storage.put(spot, original)
    assert await loads(store, ALICE)


async def test_a_replayed_older_head_is_detected(storage, store):
    await write_versions(store, ALICE, 2)
    index = index_of(store, ALICE)
    seal = (await storage.spots("head_seal", index))[0]
    fields = ("version", "tomb", "num_bytes", "updated_at", "mark")
    before = dict(zip(fields, await storage.head(index), strict=True)), await storage.get(seal)
    await write_versions(store, ALICE, 1, first=3)
    for field, value in before[0].items():
        await storage.put_head(index, field, value)
    await storage.put(seal, before[1])
    assert not await loads(store, ALICE)
    with pytest.raises(CorruptMemory):
        await store.commit(ALICE, step(2, small(3), request_id="on the replayed head"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 2), ("version", 4), ("tomb", 3), ("num_bytes", 1), ("updated_at", 1.5), ("mark", "0011")],
)
async def test_an_edited_head_is_detected(storage, store, field, value):
    await write_versions(store, ALICE, 3)
    await storage.put_head(index_of(store, ALICE), field, value)
    assert not await loads(store, ALICE)
    with pytest.raises(CorruptMemory):
        await store.head(ALICE)


async def test_the_version_before_a_damaged_one_can_be_rolled_back_to(storage, store):
    await write_versions(store, ALICE, 3, make=memory)
    chunk = (await storage.spots("chunks", index_of(store, ALICE)))[-1]
    await storage.put(chunk, flipped(await storage.get(chunk), 77))
    assert not await loads(store, ALICE)
    outcome = await store.rollback(ALICE, to_version=2, expected_version=3, request_id="back")
    assert outcome.version == 4
    restored = (await store.load(ALICE, fingerprint=MODEL)).snapshot
    assert restored.counters["tokens_learned"] == 2


async def test_a_damaged_manifest_is_not_written_over_but_can_be_rolled_back(storage, store):
    await write_versions(store, ALICE, 3, make=memory)
    manifest = (await storage.spots("manifest", index_of(store, ALICE)))[-1]
    await storage.put(manifest, flipped(await storage.get(manifest), 99))
    fresh = await storage.store()
    with pytest.raises(CorruptMemory):
        await fresh.commit(ALICE, step(3, memory(4)))
    assert (await fresh.rollback(ALICE, to_version=2, request_id="back")).version == 4
    assert await loads(fresh, ALICE)
    await write_versions(fresh, ALICE, 4, first=5, make=memory)
    assert len(await storage.spots("chunks", index_of(store, ALICE))) == 3 * 4, "the damaged version's chunks are gone"


async def test_a_damaged_version_cannot_be_rolled_back_to(storage, store):
    await write_versions(store, ALICE, 3, make=memory)
    chunks = [s for s in await storage.spots("chunks", index_of(store, ALICE)) if s.row[1].startswith("2-")]
    await storage.put(chunks[1], flipped(await storage.get(chunks[1]), 5))
    with pytest.raises(CorruptMemory):
        await store.rollback(ALICE, to_version=2, request_id="back")
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 3


async def test_a_damaged_reply_is_detected_when_the_request_is_repeated(storage, store):
    await store.commit(ALICE, step(0, small(1), request_id="r"))
    reply = (await storage.spots("result", index_of(store, ALICE)))[0]
    original = await storage.get(reply)
    for bit in range(0, 8 * len(original), 13):
        await storage.put(reply, flipped(original, bit))
        with pytest.raises(CorruptMemory):
            await store.find_request(ALICE, "r", "d")
        with pytest.raises(CorruptMemory):
            await store.commit(ALICE, step(0, small(1), request_id="r"))
    await storage.put(reply, original)
    assert isinstance(await store.commit(ALICE, step(0, small(1), request_id="r")), Duplicate)


async def test_a_damaged_conversation_is_detected(storage, store):
    session = StoredSession(turn=1, base_version=0, snapshot=memory(1))
    await store.save_session(ALICE, "chat", session, ttl_seconds=60)
    index = index_of(store, ALICE)
    for kind in ("session", "session_chunks"):
        for spot in await storage.spots(kind, index):
            original = await storage.get(spot)
            for damaged in (flipped(original, 123), original[:-1], b""):
                await storage.put(spot, damaged)
                with pytest.raises(CorruptMemory):
                    await store.load_session(ALICE, "chat", fingerprint=MODEL)
            await storage.put(spot, original)
    assert await store.load_session(ALICE, "chat", fingerprint=MODEL) is not None


async def test_a_damaged_memory_can_be_erased_and_begun_anew(storage, store):
    await write_versions(store, ALICE, 3)
    index = index_of(store, ALICE)
    for kind in ("data_key", "manifest", "head_seal"):
        for spot in await storage.spots(kind, index):
            await storage.put(spot, b"damaged")
    await store.erase(ALICE)
    head = await store.head(ALICE)
    assert isinstance(await store.commit(ALICE, step(head.version, small(1), request_id="new")), Committed)
