"""How long request ids, versions and contents are remembered."""

from support.store_memories import ALICE, MODEL, small, step

from hope_serve.memory.backend import JOURNAL_SECONDS, JOURNAL_VERSIONS
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.store import Committed, Conflict, Duplicate

START = 1_800_000_000.0


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


async def fill(store, count, *, first=1):
    for version in range(first, first + count):
        await store.commit(ALICE, step(version - 1, small(1)))


async def test_a_request_id_is_kept_for_a_day_however_many_follow(storage):
    clock = Clock()
    store = await storage.store(options=StoreOptions(clock=clock))
    await fill(store, JOURNAL_VERSIONS + 5)
    clock.now += JOURNAL_SECONDS - 1
    await fill(store, 1, first=JOURNAL_VERSIONS + 6)
    assert await store.find_request(ALICE, "request-0", "d") == Duplicate(version=1, result=b"result of 0")
    clock.now += 2
    await fill(store, 1, first=JOURNAL_VERSIONS + 7)
    for forgotten in range(6):
        assert await store.find_request(ALICE, f"request-{forgotten}", "d") is None
    assert await store.find_request(ALICE, "request-7", "d") is not None
    reports = await store.versions(ALICE)
    assert [report.version for report in reports] == list(range(8, JOURNAL_VERSIONS + 8))


async def test_the_last_thousand_request_ids_are_kept_however_old(storage):
    clock = Clock()
    store = await storage.store(options=StoreOptions(clock=clock))
    await fill(store, 3)
    clock.now += 400 * JOURNAL_SECONDS
    await fill(store, 1, first=4)
    assert isinstance(await store.find_request(ALICE, "request-0", "d"), Duplicate)


async def test_more_versions_are_kept_when_asked_for(storage):
    store = await storage.store(options=StoreOptions(keep_versions=5))
    await fill(store, 9)
    assert [report.version for report in await store.versions(ALICE) if report.restorable] == [5, 6, 7, 8, 9]
    fewer = await storage.store(options=StoreOptions(keep_versions=1))
    assert isinstance(await fewer.commit(ALICE, step(9, small(10))), Committed)
    assert [report.version for report in await store.versions(ALICE) if report.restorable] == [10]
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 10
    assert isinstance(await store.commit(ALICE, step(9, small(10), request_id="late")), Conflict)
