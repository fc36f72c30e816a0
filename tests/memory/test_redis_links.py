"""The failure matrix on the way to a real server: replies lost, links reset, slow, or silent."""

import asyncio
import contextlib

import pytest
from support.redis_patience import AT_ONCE, comes_back, ends_at_once, opened
from support.redis_proxy import Proxy
from support.redis_server import until
from support.store_memories import ALICE, BOB, MODEL, memory, small, step, tensor, write_versions

from hope_serve.errors import Exhausted, Unavailable
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.snapshot import Snapshot
from hope_serve.memory.store import Committed, Duplicate
from hope_serve.memory.url import make_store


@pytest.fixture
async def store(server):
    async with opened(server.port) as store:
        yield store


@pytest.fixture
async def proxy(server):
    proxy = await Proxy(server.port).start()
    yield proxy
    await proxy.close()


@pytest.fixture
async def far(proxy):
    """A store behind the proxy."""
    async with opened(proxy.port) as store:
        yield store


async def test_a_store_that_falls_silent_at_the_start_is_unavailable_in_time(server):
    """Whichever question of the start it is that gets no answer."""

    async def falls_silent(questions, use):
        proxy = await Proxy(server.port).start()
        proxy.black_hole_after(questions)
        await ends_at_once(use(f"redis://127.0.0.1:{proxy.port}"))
        await proxy.close()

    starts = [falls_silent(questions, lambda url: make_store(url).open()) for questions in range(4)]
    await asyncio.gather(*starts, falls_silent(0, install_functions), falls_silent(1, install_functions))


async def test_a_store_opens_although_an_answer_is_lost(server):
    """Each question of the start is put again when its answer was lost with the connection."""
    proxy = await Proxy(server.port).start()
    for question in (b"INFO", b"appendfsync", b"hs_info"):
        proxy.drop_reply_to = question
        opening = asyncio.create_task(opened(proxy.port).__aenter__())
        await until(lambda: proxy.dropped)
        proxy.drop_reply_to, proxy.dropped = None, 0
        await (await opening).close()
    await proxy.close()


async def test_a_reply_lost_after_the_commit_is_found_again_by_the_retry(proxy, far, store):
    for version in range(1, 6):
        request = step(version - 1, memory(version))
        proxy.drop_reply_to = b"hs_commit"
        await ends_at_once(far.commit(ALICE, request))
        proxy.drop_reply_to = None
        again = await far.commit(ALICE, request)
        assert again == Duplicate(version=version, result=request.result)
    assert proxy.dropped == 5
    assert (await store.head(ALICE)).version == 5


async def test_a_lost_reply_of_every_other_call_is_harmless(proxy, far, store):
    await write_versions(far, ALICE, 3)
    for function in (b"hs_find", b"hs_head", b"hs_read", b"hs_versions"):
        proxy.drop_reply_to = function
        calls = [far.head(ALICE), far.versions(ALICE), far.find_request(ALICE, "request-1", "d")]
        await asyncio.gather(*calls, return_exceptions=True)
    proxy.drop_reply_to = b"hs_erase"
    await ends_at_once(far.erase(ALICE))
    proxy.drop_reply_to = None
    receipt = await far.erase(ALICE)
    assert receipt.versions_removed == 3
    assert receipt == await store.erase(ALICE)


async def test_reset_connections_are_replaced(proxy, far):
    await write_versions(far, ALICE, 1)
    for version in range(2, 5):
        proxy.reset()
        outcome = await comes_back(lambda version=version: far.commit(ALICE, step(version - 1, small(version))))
        assert outcome.version == version


async def test_a_reset_in_the_middle_of_a_commit_leaves_all_or_nothing(proxy, far, store):
    for version in range(1, 8):
        request = step(version - 1, memory(version))
        task = asyncio.create_task(far.commit(ALICE, request))
        await asyncio.sleep(0.002 * version)
        proxy.reset()
        await asyncio.gather(task, return_exceptions=True)
        outcome = await comes_back(lambda request=request: far.commit(ALICE, request))
        assert outcome.version == version
        assert (await store.load(ALICE, fingerprint=MODEL)).snapshot.counters == memory(version).counters


async def test_a_black_hole_bounds_time_and_calls_under_way(proxy, far):
    await write_versions(far, ALICE, 1)
    proxy.black_hole = True
    results = await asyncio.wait_for(
        asyncio.gather(*(far.head(ALICE) for _ in range(1000)), return_exceptions=True), 3 * AT_ONCE
    )
    kinds = [type(result) for result in results]
    assert set(kinds) == {Unavailable, Exhausted}
    assert kinds.count(Unavailable) <= 256
    proxy.black_hole = False
    assert (await comes_back(lambda: far.head(ALICE))).version == 1


async def test_a_slow_store_is_slow_and_right(proxy, far):
    proxy.delay = 0.05
    await write_versions(far, ALICE, 3)
    proxy.delay = 5
    await ends_at_once(far.head(ALICE))
    proxy.delay = 0
    proxy.reset()
    assert (await comes_back(lambda: far.load(ALICE, fingerprint=MODEL))).version == 3


async def test_large_transfers_do_not_stand_before_small_calls(store):
    big = Snapshot(fingerprint=MODEL, schema=1, tensors={"big": tensor(1, 24 * 2**20)}, counters={})
    await write_versions(store, BOB, 1)
    writing = asyncio.create_task(store.commit(ALICE, step(0, big)))
    heads = 0
    while not writing.done():
        assert (await store.head(BOB)).version == 1
        heads += 1
    assert isinstance(await writing, Committed)
    assert heads > 20


async def test_a_cancelled_call_does_not_break_the_connection_for_the_next(store):
    await write_versions(store, ALICE, 1, make=memory)
    for attempt in range(60):
        task = asyncio.create_task(store.load(ALICE, fingerprint=MODEL))
        await asyncio.sleep(attempt * 0.0001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert (await store.head(ALICE)).version == 1
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 1
