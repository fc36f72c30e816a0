"""Memories that lie idle: quarantined first, erased when somebody watched them long enough, whatever clocks say."""

import time

import pytest
from support.store_memories import ALICE, BOB, MODEL, small, step, write_versions

from hope_serve.errors import FailedPrecondition, Unavailable
from hope_serve.memory.expiry import MAX_SKEW_SECONDS, Terms
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.url import make_store

HOUR, DAY = 3600.0, 86_400.0
TERMS = Terms(idle_seconds=30 * DAY, grace_seconds=7 * DAY, max_gap_seconds=4 * HOUR)


class Clock:
    """The store's clock."""

    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def store(storage, clock):
    """Where alice's memory has lain idle for 31 days, and bob's for one."""
    opened = await storage.store(options=StoreOptions(clock=clock))
    await write_versions(opened, ALICE, 2)
    clock.now += 30 * DAY
    await write_versions(opened, BOB, 1)
    clock.now += DAY
    return opened


async def watch(store, clock, seconds, *, every=HOUR):
    """Pass after pass; the last one's report."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += every
        done = await store.upkeep.expire(TERMS)
    return done


async def test_an_idle_memory_is_served_in_quarantine_and_erased_after_the_grace(store, clock):
    done = await store.upkeep.expire(TERMS)
    assert (done.seen, done.quarantined, done.erased, done.implausible) == (2, 1, 0, 0)
    done = await watch(store, clock, 7 * DAY - HOUR)
    assert (done.quarantined, done.erased) == (1, 0)
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 2
    done = await watch(store, clock, HOUR)
    assert (done.quarantined, done.erased) == (0, 1)
    assert not (await store.head(ALICE)).exists
    assert (await store.head(BOB)).exists


async def test_any_change_brings_a_memory_out_of_quarantine(store, clock):
    await store.upkeep.expire(TERMS)
    await watch(store, clock, 7 * DAY - HOUR)
    await store.rollback(ALICE, to_version=2, request_id="keep")
    done = await watch(store, clock, 2 * DAY)
    assert (done.quarantined, done.erased) == (0, 0)
    clock.now += 30 * DAY
    await store.upkeep.expire(TERMS)
    done = await watch(store, clock, 7 * DAY - HOUR)
    assert (done.quarantined, done.erased) == (2, 0)  # a new grace, from the beginning


async def test_a_clock_that_leaps_ahead_erases_nothing_and_one_that_comes_back_frees_all(store, clock):
    await store.upkeep.expire(TERMS)
    clock.now += 400 * DAY
    for _ in range(2):
        done = await watch(store, clock, 6 * DAY)
        assert (done.quarantined, done.erased) == (2, 0)
        clock.now += 400 * DAY
    clock.now -= 1212 * DAY
    done = await store.upkeep.expire(TERMS)
    assert (done.quarantined, done.erased) == (1, 0)  # alice, who was idle before the clock went wrong
    assert (await watch(store, clock, 6 * DAY)).erased == 0
    assert (await store.head(ALICE)).exists
    assert (await store.head(BOB)).exists


async def test_a_grace_that_nobody_watched_does_not_count(store, clock):
    await store.upkeep.expire(TERMS)
    clock.now += 8 * DAY  # every pod was down
    assert (await store.upkeep.expire(TERMS)).erased == 0
    assert (await watch(store, clock, 7 * DAY - HOUR)).erased == 0
    assert (await watch(store, clock, HOUR)).erased == 1


async def test_a_clock_that_goes_back_erases_nothing_and_a_memory_of_the_future_is_left_alone(store, clock):
    clock.now -= 31 * DAY
    done = await watch(store, clock, 2 * HOUR)
    assert (done.quarantined, done.erased, done.implausible) == (0, 0, 1)


async def test_pods_that_watch_side_by_side_agree(storage, store, clock):
    other = await storage.store(options=StoreOptions(clock=clock))
    await store.upkeep.expire(TERMS)
    for _ in range(7 * 24 - 1):
        clock.now += HOUR
        done = await other.upkeep.expire(TERMS)
        assert done.erased == 0
        await store.upkeep.expire(TERMS)
    clock.now += HOUR
    assert (await other.upkeep.expire(TERMS)).erased == 1
    assert (await store.upkeep.expire(TERMS)).erased == 0


async def test_a_change_that_comes_between_the_list_and_the_erasure_saves_the_memory(store, clock, monkeypatch):
    await store.upkeep.expire(TERMS)
    await watch(store, clock, 7 * DAY - HOUR)
    erase_idle = store._eraser.erase_idle

    async def late(owner, *, before):
        await store.commit(owner, step(2, small(3)))
        return await erase_idle(owner, before=before)

    monkeypatch.setattr(store._eraser, "erase_idle", late)
    assert (await watch(store, clock, HOUR)).erased == 0
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 3


async def test_a_damaged_mark_is_a_longer_grace_and_no_erasure(store, clock):
    await store.upkeep.expire(TERMS)
    await watch(store, clock, 7 * DAY - HOUR)
    for mark in (b"{", b"[]", b'{"mark": "x", "since": 0.0}'):
        await store._backend.set_mark(store.owner_key(ALICE), mark)
        assert (await watch(store, clock, HOUR)).erased == 0


async def test_marks_of_memories_that_were_erased_or_changed_do_not_stay(store, clock):
    await store.upkeep.expire(TERMS)
    assert await store._backend.marks([store.owner_key(ALICE)])
    await store.erase(ALICE)
    await store.upkeep.expire(TERMS)
    assert not await store._backend.marks([store.owner_key(ALICE)])


async def test_a_store_that_broke_its_promise_erases_nothing_by_itself(server, monkeypatch):
    store = make_store(server.url)
    await store.open()
    await write_versions(store, ALICE, 1)
    at_once = Terms(idle_seconds=0, grace_seconds=0, max_gap_seconds=HOUR)
    await store.upkeep.expire(at_once)
    server.command("CONFIG", "SET", "appendfsync", "no")
    await store.look_again()
    with pytest.raises(Unavailable):
        await store.upkeep.expire(at_once)
    assert (await store.head(ALICE)).exists
    await store.close()


@pytest.mark.parametrize("days", [-400, 400])
async def test_a_pod_whose_clock_is_off_writes_the_stores_time_and_erases_nothing(server, monkeypatch, days):
    right = make_store(server.url)
    await right.open()
    await write_versions(right, ALICE, 1)
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + days * DAY)
    wrong = make_store(server.url)
    await wrong.open()
    await write_versions(wrong, BOB, 1)
    for owner in (ALICE, BOB):
        assert abs((await wrong.head(owner)).updated_at - honest()) < 60
    with pytest.raises(FailedPrecondition) as refused:
        await wrong.upkeep.expire(TERMS)
    assert refused.value.reason == "CLOCK_SKEW"
    assert abs(wrong._clock.skew + days * DAY) < 60
    monkeypatch.setattr(time, "time", honest)
    done = await right.upkeep.expire(TERMS)
    assert (done.quarantined, done.erased, done.implausible) == (0, 0, 0)
    for store in (right, wrong):
        await store.close()


async def test_a_small_difference_of_clocks_is_no_reason_to_stop(server, monkeypatch):
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + MAX_SKEW_SECONDS / 2)
    store = make_store(server.url)
    await store.open()
    await write_versions(store, ALICE, 1)
    assert (await store.upkeep.expire(TERMS)).seen == 1
    await store.close()
