"""Primary and replica: link cut, primary killed, replica promoted. Nothing acknowledged is lost."""

import asyncio
import time

import pytest
from support.redis_pair import Pair
from support.redis_server import RedisServer, until
from support.store_memories import ALICE, BOB, MODEL, small, step, write_versions

from hope_serve.api import Durability, Owner
from hope_serve.errors import FailedPrecondition, NotFound, Unavailable
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.store import Committed, Conflict, Duplicate
from hope_serve.memory.url import make_store


@pytest.fixture
async def pair(tmp_path):
    pair = await Pair(tmp_path).start()
    await install_functions(pair.primary.url)
    yield pair
    await pair.close()


@pytest.fixture
async def stores():
    """Opens stores and closes them at the end."""
    opened = []

    async def open_store(url):
        store = make_store(url)
        await store.open()
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        await store.close()


async def test_a_commit_is_on_the_replicas_disk_before_it_is_acknowledged(pair, stores):
    store = await stores(pair.url)
    assert store.durability is Durability.REPLICATED_FSYNC
    await write_versions(store, ALICE, 3)
    pair.primary.kill()
    pair.replica.kill()
    pair.replica.settings.pop("replicaof")
    await asyncio.to_thread(pair.replica.start)
    survivor = await stores(f"{pair.replica.url}?durability=local_fsync")
    assert (await survivor.load(ALICE, fingerprint=MODEL)).version == 3


async def test_no_pod_opens_on_a_secret_that_a_failover_would_lose(pair, stores):
    """It would find, and be told of, memories under names that no other pod looks for."""
    pair.link.black_hole = True
    await stores(f"{pair.primary.url}?durability=local_fsync")  # writes a secret, which its own disk is enough for
    pod = make_store(pair.url)
    with pytest.raises(Unavailable) as caught:
        await pod.open()
    assert caught.value.reason == "NOT_DURABLE"
    await pair.promote()
    pods = [await stores(f"{pair.replica.url}?durability=local_fsync") for _ in range(2)]
    await write_versions(pods[0], ALICE, 1)
    assert (await pods[1].load(ALICE, fingerprint=MODEL)).version == 1


async def test_a_commit_that_the_replica_has_not_is_not_acknowledged_until_it_has(pair, stores):
    store = await stores(pair.url)
    await write_versions(store, ALICE, 1)
    pair.link.black_hole = True
    request = step(1, small(2))
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await store.commit(ALICE, request)
        assert caught.value.reason == "NOT_DURABLE"
    with pytest.raises(Unavailable):
        await store.find_request(ALICE, request.request_id, "d")
    pair.link.black_hole = False
    give_up = time.monotonic() + 10
    while True:
        try:
            outcome = await store.commit(ALICE, request)
            break
        except Unavailable:
            assert time.monotonic() < give_up
    assert outcome == Duplicate(version=2, result=request.result)
    pair.primary.kill()
    await pair.promote()
    survivor = await stores(f"{pair.replica.url}?durability=local_fsync")
    assert (await survivor.load(ALICE, fingerprint=MODEL)).version == 2


async def test_a_sentinel_failover_under_load_loses_nothing_acknowledged(pair, stores):
    await pair.watch()
    store = await stores(pair.sentinel_url())
    owners = [Owner(tenant="t", user=f"u{i}") for i in range(4)]
    acknowledged = {owner: [] for owner in owners}
    done = asyncio.Event()

    async def adapt(owner):
        number = 0
        while not done.is_set():
            number += 1
            version = await learn(store, owner, f"r{number}", done)
            if version:
                acknowledged[owner].append((f"r{number}", version))

    writers = [asyncio.create_task(adapt(owner)) for owner in owners]
    await asyncio.sleep(0.3)
    pair.link.black_hole = True
    await asyncio.sleep(0.1)
    counts_before = {owner: len(acks) for owner, acks in acknowledged.items()}
    pair.primary.kill()
    await pair.promoted()
    await restart_as_replica(pair)
    await until_more(acknowledged, counts_before)
    done.set()
    await asyncio.gather(*writers)
    for owner in owners:
        reports = await store.versions(owner)
        assert [report.version for report in reports] == list(range(1, len(reports) + 1))
        applied = {report.request_id: report.version for report in reports}
        assert len(applied) == len(reports), "applied twice"
        for request, version in acknowledged[owner]:
            assert applied.get(request) == version, "acknowledged and lost"


async def restart_as_replica(pair):
    pair.primary.settings["replicaof"] = f"127.0.0.1 {pair.replica.port}"
    await asyncio.to_thread(pair.primary.start)


async def until_more(acknowledged, before):
    give_up = time.monotonic() + 30
    while not all(len(acks) > before[owner] + 3 for owner, acks in acknowledged.items()):
        assert time.monotonic() < give_up, "writes did not come back after the failover"
        await asyncio.sleep(0.05)


async def learn(store, owner, request_id, done):
    """One Adapt with retries, as the engine does it: its version, or None when told to stop first."""
    while True:
        try:
            head = await store.head(owner)
            outcome = await store.commit(owner, step(head.version, small(head.version + 1), request_id=request_id))
        except Unavailable:
            if done.is_set():
                return None
            await asyncio.sleep(0.02)
            continue
        if isinstance(outcome, Committed | Duplicate):
            return outcome.version
        assert isinstance(outcome, Conflict)


async def test_a_failover_that_lost_a_local_version_is_told_as_a_conflict(pair, stores, caplog):
    await pair.watch()
    store = await stores(pair.sentinel_url("local_fsync"))
    await write_versions(store, ALICE, 2)
    await asyncio.sleep(0.1)
    pair.link.black_hole = True
    await asyncio.sleep(0.05)
    await write_versions(store, ALICE, 1, first=3)
    await write_versions(store, BOB, 1)
    pair.primary.kill()
    await pair.promoted()
    give_up = time.monotonic() + 20
    while True:
        try:
            outcome = await store.commit(ALICE, step(3, small(4), request_id="next"))
            break
        except Unavailable:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.05)
    assert isinstance(outcome, Conflict)
    assert outcome.head.version == 2
    assert "version_regression" in caplog.text
    with pytest.raises(NotFound):
        await store.load(BOB, fingerprint=MODEL)


async def test_a_second_replica_is_refused_because_the_wait_could_be_for_the_wrong_one(pair, stores, tmp_path):
    second = RedisServer(tmp_path / "third", replicaof=f"127.0.0.1 {pair.primary.port}").start()
    await until(lambda: b"connected_slaves:2" in pair.primary.command("INFO", "replication"))
    with pytest.raises(FailedPrecondition, match="2 replicas"):
        await stores(pair.url)
    second.kill()


async def test_a_replica_that_does_not_wait_for_its_disk_is_refused(pair, stores):
    pair.replica.command("CONFIG", "SET", "appendfsync", "everysec")
    with pytest.raises(FailedPrecondition, match="appendfsync everysec"):
        await stores(pair.url)
