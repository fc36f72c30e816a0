"""The failure matrix against a real server: what its troubles may cost, and what they must not."""

import asyncio
from dataclasses import replace

import pytest
from support.redis_patience import comes_back, ends_at_once, opened
from support.redis_server import RedisServer
from support.store_memories import ALICE, BOB, MODEL, memory, small, step, write_versions
from support.store_victims import Victim, check

from hope_serve.api import Durability
from hope_serve.errors import CorruptMemory, Exhausted, FailedPrecondition, Unavailable
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.redis import staging
from hope_serve.memory.redis.address import parse_address
from hope_serve.memory.redis.make import install_functions, make_redis_store
from hope_serve.memory.redis.node import Limits
from hope_serve.memory.snapshot import Snapshot
from hope_serve.memory.store import Committed
from hope_serve.memory.url import make_store


@pytest.fixture
async def store(server):
    async with opened(server.port) as store:
        yield store


async def test_redis_killed_and_restarted_loses_nothing_acknowledged(server, store):
    assert store.durability is Durability.LOCAL_FSYNC
    for round_number in range(3):
        await write_versions(store, ALICE, 5, first=5 * round_number + 1, make=memory)
        server.kill()
        error = await ends_at_once(store.commit(ALICE, step(5 * round_number + 5, small(9), request_id="in vain")))
        assert "same request id" in str(error)
        await ends_at_once(store.load(ALICE, fingerprint=MODEL))
        server.start()
        assert (await comes_back(lambda: store.load(ALICE, fingerprint=MODEL))).version == 5 * round_number + 5
    assert [report.version for report in await store.versions(ALICE)] == list(range(1, 16))


@pytest.fixture
async def slow_loader(server):
    """A server with Alice's memory that takes two seconds or more to read its file again."""
    async with opened(server.port) as store:
        await write_versions(store, ALICE, 2)
    server.command("EVAL", "for i = 1, 20000 do redis.call('SET', 'filler:' .. i, i) end", 0)
    server.kill()
    server.settings |= {"key-load-delay": 100}  # in microseconds; it looks for clients after every 1,024 keys
    return server.start(loading=True)


async def test_a_store_is_opened_once_the_server_has_loaded_its_data(slow_loader):
    assert "loading:1" in slow_loader.command("INFO", "persistence").decode()
    async with opened(slow_loader.port) as store:
        assert (await store.load(ALICE, fingerprint=MODEL)).version == 2


async def test_a_server_that_does_not_end_loading_is_refused_by_that_name(slow_loader):
    limits = replace(Limits(), loading_seconds=0.3)
    store = make_redis_store(parse_address(slow_loader.url), None, StoreOptions(), limits)
    with pytest.raises(Unavailable, match="still loading its data") as refused:
        await store.open()
    assert refused.value.reason == "STORE_LOADING"


async def test_redis_paused_ends_every_call_in_its_own_time_and_recovers(server, store):
    await write_versions(store, ALICE, 1)
    server.pause()
    calls = [store.head(ALICE), store.load(ALICE, fingerprint=MODEL), store.commit(ALICE, step(1, small(2)))]
    await asyncio.gather(*(ends_at_once(call) for call in calls))
    server.resume()
    outcome = await comes_back(lambda: store.commit(ALICE, step(1, small(2))))
    assert outcome.version == 2


async def test_redis_out_of_memory_refuses_commits_keeps_reads_and_recovers_by_itself(server, store):
    await write_versions(store, ALICE, 1, make=memory)
    server.command("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(Exhausted, match="memory"):
        await store.commit(ALICE, step(1, memory(2)))
    with pytest.raises(Exhausted, match="memory"):
        await store.commit(ALICE, step(1, Snapshot(fingerprint=MODEL, schema=1, tensors={}, counters={})))
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 1
    server.command("CONFIG", "SET", "maxmemory", 0)
    assert isinstance(await store.commit(ALICE, step(1, memory(2))), Committed)


async def test_redis_out_of_memory_still_erases(server, store):
    await write_versions(store, ALICE, 2, make=memory)
    server.command("CONFIG", "SET", "maxmemory", 1)
    assert (await store.erase(ALICE)).versions_removed == 2
    assert not (await store.head(ALICE)).exists
    assert not await store.delete_session(ALICE, "s")


async def test_redis_with_a_full_disk_is_unavailable_and_nothing_acknowledged_is_lost(tmp_path):
    server = RedisServer(tmp_path / "small").start(largest_file=8192)
    await install_functions(server.url)
    async with opened(server.port) as store:
        acknowledged = 0
        with pytest.raises((Unavailable, Exhausted)):
            while True:
                await write_versions(store, ALICE, 1, first=acknowledged + 1, make=memory)
                acknowledged += 1
        assert acknowledged > 1
        server.restart()
        stored = await comes_back(lambda: store.load(ALICE, fingerprint=MODEL))
        assert stored.version in (acknowledged, acknowledged + 1)
        outcome = await store.commit(ALICE, step(acknowledged, memory(acknowledged + 1)))
        assert outcome.version == acknowledged + 1
    server.kill()


async def test_redis_restarted_empty_is_noticed_and_never_taken_for_a_fresh_start(server, store):
    await write_versions(store, ALICE, 2)
    server.restart(empty=True)
    for call in (store.head, store.versions, lambda owner: store.load(owner, fingerprint=MODEL)):
        with pytest.raises(Unavailable) as caught:
            await comes_back_wrong(lambda call=call: call(ALICE))
        assert caught.value.reason == "STORE_EMPTY"
    with pytest.raises(Unavailable, match="empty"):
        await store.commit(BOB, step(0, small(1)))
    await install_functions(server.url)
    with pytest.raises(Unavailable, match="installed anew"):
        await store.commit(BOB, step(0, small(1)))
    with pytest.raises(Unavailable, match="installed anew"):
        await store.head(ALICE)


async def comes_back_wrong(call):
    """The error once the server answers again."""
    while True:
        try:
            return await call()
        except Unavailable as error:
            if error.reason != "UNAVAILABLE":
                raise
            await asyncio.sleep(0.02)


async def test_a_store_without_functions_is_refused_at_the_start(tmp_path):
    server = RedisServer(tmp_path / "bare").start()
    with pytest.raises(Unavailable, match="install-functions"):
        async with opened(server.port):
            pass
    server.kill()


@pytest.mark.parametrize(
    ("settings", "query", "names"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "", "maxmemory-policy"),
        ({"appendfsync": "everysec"}, "", "appendfsync"),
        ({"appendonly": "no"}, "?durability=local_fsync", "appendonly"),
        ({}, "?durability=replicated_fsync", "replica"),
    ],
)
async def test_settings_that_cannot_keep_the_promise_are_refused_by_name(tmp_path, settings, query, names):
    server = RedisServer(tmp_path / "server", **settings).start()
    await install_functions(server.url)
    with pytest.raises(FailedPrecondition, match=names):
        async with opened(server.port, query):
            pass
    server.kill()


async def test_a_volatile_store_needs_to_be_asked_for(tmp_path):
    server = RedisServer(tmp_path / "server", appendonly="no").start()
    await install_functions(server.url)
    async with opened(server.port, "?durability=volatile") as store:
        assert store.durability is Durability.VOLATILE
    server.kill()


async def test_staged_chunks_that_vanish_before_the_commit_are_not_acknowledged(server, store, monkeypatch):
    monkeypatch.setattr(staging, "STAGED_MS", 0)
    error = await ends_at_once(store.commit(ALICE, step(0, memory(1))))
    assert error.reason == "STAGED_LOST"
    assert (await store.head(ALICE)).version == 0
    monkeypatch.undo()
    assert isinstance(await store.commit(ALICE, step(0, memory(1))), Committed)


async def test_staged_chunks_of_lost_races_expire(server, store):
    await write_versions(store, ALICE, 1, make=memory)
    index = store._owners.binding(ALICE).index
    for request in ("late-1", "late-2"):
        await store.commit(ALICE, step(0, memory(2), request_id=request))
    stale = make_store(server.url)
    await stale.open()
    await stale.commit(ALICE, step(1, memory(2), request_id="first"))
    assert (await store.commit(ALICE, step(1, memory(3), request_id="second"))).head.version == 2
    await stale.close()
    chunks = server.command("KEYS", f"hs:{{{index}}}:c:*")
    lives = sorted(server.command("PTTL", key) for key in chunks)
    assert lives.count(-1) == 2
    assert all(0 < life <= 120_000 for life in lives if life != -1)


async def test_a_head_that_vanished_is_damage_and_not_a_new_user(server, store):
    await write_versions(store, ALICE, 2)
    index = store._owners.binding(ALICE).index
    server.command("DEL", f"hs:{{{index}}}:m")
    for call in (store.head(ALICE), store.load(ALICE, fingerprint=MODEL), store.commit(ALICE, step(0, small(1)))):
        with pytest.raises(CorruptMemory):
            await call
    await store.erase(ALICE)
    head = await store.head(ALICE)
    assert (head.version, head.exists) == (3, False)


async def test_a_failover_that_lost_a_version_is_a_conflict_and_an_alarm(server, store, caplog):
    await write_versions(store, ALICE, 2)
    before = server.command("DUMP", key := f"hs:{{{store._owners.binding(ALICE).index}}}:m")
    manifests = server.command("DUMP", rows := key[:-1] + "n")
    await write_versions(store, ALICE, 1, first=3)
    server.command("RESTORE", key, 0, before, "REPLACE")
    server.command("RESTORE", rows, 0, manifests, "REPLACE")
    outcome = await store.commit(ALICE, step(3, small(4), request_id="on the lost version"))
    assert outcome.head.version == 2
    assert "version_regression" in caplog.text
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 2


async def test_a_paused_pod_that_resumes_neither_overwrites_nor_repeats(server):
    """What it had computed when it was stopped belongs to versions that others have passed meanwhile."""
    pods = [Victim(server.url, name) for name in ("paused", "busy")]
    for pod in pods:
        pod.start()
        pod.wait_for_work()
    for seconds in (0.05, 0.2, 0.4):
        await pods[0].pause(seconds)
        await asyncio.sleep(0.1)
    for pod in pods:
        pod.kill()
    assert all(pod.acknowledged for pod in pods)
    await check(server.url, pods)
