"""A cluster: owners spread over servers, slots that move, a server that is lost."""

import pytest
from redis.crc import key_slot
from support.redis_server import RedisServer, until
from support.store_memories import ALICE, MODEL, memory, step, write_versions

from hope_serve.api import Owner
from hope_serve.errors import Unavailable
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.url import make_store

OWNERS = [Owner(tenant="acme", user=f"user-{number}") for number in range(12)]
HALF = 8192


@pytest.fixture
async def servers(tmp_path):
    """Two servers, each with half of the slots."""
    servers = [
        RedisServer(tmp_path / name, appendonly="no", cluster_enabled="yes", cluster_require_full_coverage="no").start()
        for name in ("low", "high")
    ]
    try:
        await join(*servers)
        yield servers
    finally:
        for server in servers:
            server.kill()


async def join(low, high):
    low.command("CLUSTER", "SET-CONFIG-EPOCH", 1)
    high.command("CLUSTER", "SET-CONFIG-EPOCH", 2)
    low.command("CLUSTER", "ADDSLOTSRANGE", 0, HALF - 1)
    high.command("CLUSTER", "ADDSLOTSRANGE", HALF, 16383)
    low.command("CLUSTER", "MEET", "127.0.0.1", high.port)
    await until(lambda: all(len(server.command("CLUSTER", "SLOTS")) == 2 for server in (low, high)))
    await until(lambda: all(b"cluster_state:ok" in server.command("CLUSTER", "INFO") for server in (low, high)))


@pytest.fixture
async def store(servers):
    url = f"redis://127.0.0.1:{servers[0].port}?cluster=1&durability=volatile"
    await install_functions(url)
    store = make_store(url)
    await store.open()
    yield store
    await store.close()


async def test_owners_are_spread_and_each_one_is_whole_on_one_server(servers, store):
    for owner in OWNERS:
        await write_versions(store, owner, 4, make=memory)
    homes = set()
    for owner in OWNERS:
        assert (await store.load(owner, fingerprint=MODEL)).version == 4
        slot = key_slot(f"hs:{{{store.owner_key(owner)}}}:m".encode())
        homes.add(slot < HALF)
        keys = [server.command("KEYS", f"hs:{{{store.owner_key(owner)}}}:*") for server in servers]
        assert bool(keys[0]) == (slot < HALF)
        assert bool(keys[0]) != bool(keys[1])
    assert homes == {True, False}
    assert len((await store.list_owners("acme"))[0]) == len(OWNERS)


async def test_a_slot_that_moved_is_followed(servers, store):
    await write_versions(store, ALICE, 1)
    slot = key_slot(f"hs:{{{store.owner_key(ALICE)}}}:m".encode())
    here, there = servers if slot < HALF else reversed(servers)
    move_slot(here, there, slot)
    outcome = await store.commit(ALICE, step(1, memory(2)))
    assert outcome.version == 2
    assert there.command("EXISTS", f"hs:{{{store.owner_key(ALICE)}}}:m") == 1
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 2


async def test_a_commit_while_its_slot_moves_is_whole_or_nothing(servers, store):
    await write_versions(store, ALICE, 2, make=memory)
    key = f"hs:{{{store.owner_key(ALICE)}}}"
    slot = key_slot(f"{key}:m".encode())
    here, there = servers if slot < HALF else reversed(servers)
    begin_move(here, there, slot)
    here.command("MIGRATE", "127.0.0.1", there.port, "", 0, 1000, "KEYS", f"{key}:v")
    request = step(2, memory(3))
    with pytest.raises(Unavailable):
        await store.commit(ALICE, request)
    finish_move(here, there, slot)
    assert (await store.commit(ALICE, request)).version == 3
    assert [report.version for report in await store.versions(ALICE)] == [1, 2, 3]


async def test_a_lost_server_takes_only_its_own_owners_down(servers, store):
    for owner in OWNERS:
        await write_versions(store, owner, 1)
    servers[1].kill()
    for owner in OWNERS:
        if key_slot(f"hs:{{{store.owner_key(owner)}}}:m".encode()) < HALF:
            assert (await store.load(owner, fingerprint=MODEL)).version == 1
        else:
            with pytest.raises(Unavailable):
                await store.load(owner, fingerprint=MODEL)


def begin_move(here, there, slot):
    there.command("CLUSTER", "SETSLOT", slot, "IMPORTING", here.command("CLUSTER", "MYID"))
    here.command("CLUSTER", "SETSLOT", slot, "MIGRATING", there.command("CLUSTER", "MYID"))


def finish_move(here, there, slot):
    while keys := here.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        here.command("MIGRATE", "127.0.0.1", there.port, "", 0, 1000, "KEYS", *keys)
    for server in (there, here):
        server.command("CLUSTER", "SETSLOT", slot, "NODE", there.command("CLUSTER", "MYID"))


def move_slot(here, there, slot):
    begin_move(here, there, slot)
    finish_move(here, there, slot)
