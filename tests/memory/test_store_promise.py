"""Databases that are told to be careless while they serve: what is acknowledged then, and afterwards."""

import pytest
from support.redis_pair import Pair
from support.store_memories import ALICE, BOB, small, step, write_versions

from hope_serve.errors import FailedPrecondition, Unavailable
from hope_serve.memory.keys import ANY_TENANT, NamedKey, TenantKeys, new_key, single_key
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.store import Committed
from hope_serve.memory.url import make_store


@pytest.fixture
async def store(server):
    """On a server that waits for its disk."""
    opened = make_store(server.url)
    await opened.open()
    await write_versions(opened, ALICE, 2)
    yield opened
    await opened.close()


CARELESS = [
    ("appendfsync", "everysec", "always"),
    ("appendfsync", "no", "always"),
    ("appendonly", "no", "yes"),
    ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ("maxmemory-policy", "volatile-ttl", "noeviction"),
]


@pytest.mark.parametrize(("setting", "careless", "careful"), CARELESS)
async def test_a_server_that_is_told_to_be_careless_gets_nothing_acknowledged_until_it_is_careful(
    server, store, caplog, setting, careless, careful
):
    assert await store.look_again()
    server.command("CONFIG", "SET", setting, careless)
    assert not await store.look_again()
    assert setting.split("-")[0] in caplog.text
    await _nothing_is_acknowledged(store, "STORE_SETTINGS")
    assert (await store.head(ALICE)).version == 2  # reads go on
    server.command("CONFIG", "SET", setting, careful)
    assert await store.look_again()
    await _all_is_acknowledged(store)


async def test_a_change_that_ceased_to_be_durable_while_it_was_written_is_not_acknowledged(server, store, monkeypatch):
    written = store._backend.write

    async def write(owner, change):
        outcome = await written(owner, change)
        server.command("CONFIG", "SET", "appendfsync", "no")
        await store.look_again()
        return outcome

    monkeypatch.setattr(store._backend, "write", write)
    with pytest.raises(Unavailable) as refused:
        await store.commit(ALICE, step(2, small(3), request_id="three"))
    assert refused.value.reason == "STORE_SETTINGS"
    server.command("CONFIG", "SET", "appendfsync", "always")
    await store.look_again()
    assert (await store.find_request(ALICE, "three", "d")).version == 3  # it was written; now it may be said


async def test_an_erasure_is_done_at_once_and_told_when_it_will_last(server, store):
    server.command("CONFIG", "SET", "appendfsync", "everysec")
    await store.look_again()
    with pytest.raises(Unavailable):
        await store.erase(ALICE)
    assert not (await store.head(ALICE)).exists
    server.command("CONFIG", "SET", "appendfsync", "always")
    await store.look_again()
    assert (await store.erase(ALICE)).versions_removed == 2


async def test_a_secret_that_is_lost_gets_nothing_acknowledged_until_it_is_back(server, store):
    key = "hs:secret"
    secret = server.command("GET", key)
    server.command("DEL", key)
    assert not await store.look_again()
    await _nothing_is_acknowledged(store, "SECRET_LOST")
    with pytest.raises(FailedPrecondition):
        await store.upkeep.rotate_keys()  # which must not make a new one
    assert server.command("EXISTS", key) == 0
    server.command("SET", key, secret)
    assert await store.look_again()
    await _all_is_acknowledged(store)


async def test_a_secret_that_was_exchanged_is_not_ours(server, store):
    server.command("SET", "hs:secret", b"x" * 64)
    assert not await store.look_again()
    await _nothing_is_acknowledged(store, "KEY_MISMATCH")


@pytest.mark.parametrize("lost", [("hs:secret",), ("hs:installation",), ("hs:secret", "hs:installation")])
async def test_a_store_that_lost_its_secret_takes_no_new_pods_and_gets_no_new_secret(server, store, lost):
    kept = {key: server.command("GET", key) for key in lost}
    server.command("DEL", *lost)
    for _ in range(2):
        pod = make_store(server.url)
        with pytest.raises(FailedPrecondition) as refused:
            await pod.open()
        assert refused.value.reason == "SECRET_LOST"
    assert server.command("EXISTS", *lost) == 0
    for key, value in kept.items():
        server.command("SET", key, value)
    pod = make_store(server.url)
    await pod.open()
    assert (await pod.head(ALICE)).version == 2
    await pod.close()


async def test_the_same_under_keys_of_ones_own(server):
    keys = single_key(new_key(), key_id="k1", encrypts=True)
    first = make_store(server.url, keys=keys)
    await first.open()
    await write_versions(first, ALICE, 1)
    await first.close()
    server.command("DEL", "hs:secret")
    pod = make_store(server.url, keys=keys)
    with pytest.raises(FailedPrecondition) as refused:
        await pod.open()
    assert refused.value.reason == "SECRET_LOST"


async def test_keys_that_are_rotated_elsewhere_break_no_promise(server):
    old, new = new_key(), new_key()

    def ring(*names):
        held = {"old": NamedKey(id="old", secret=old), "new": NamedKey(id="new", secret=new)}
        return TenantKeys({ANY_TENANT: tuple(held[name] for name in names)})

    here, there = make_store(server.url, keys=ring("old", "new")), make_store(server.url, keys=ring("new", "old"))
    for pod in (here, there):
        await pod.open()
    await there.upkeep.rotate_keys()
    assert await here.look_again()
    for pod in (here, there):
        await pod.close()


async def test_a_server_that_does_not_answer_a_look_leaves_things_as_they_were(server, store):
    server.kill()
    with pytest.raises(Unavailable):
        await store.look_again()
    assert store.promise.kept
    server.start()


async def test_a_replica_that_becomes_careless_is_noticed(tmp_path):
    pair = await Pair(tmp_path).start()
    try:
        await install_functions(pair.url)
        store = make_store(pair.url)
        await store.open()
        assert await store.look_again()
        pair.replica.command("CONFIG", "SET", "appendfsync", "everysec")
        assert not await store.look_again()
        await _nothing_is_acknowledged(store, "STORE_SETTINGS", at=0)
        pair.replica.command("CONFIG", "SET", "appendfsync", "always")
        assert await store.look_again()
        await store.close()
    finally:
        await pair.close()


async def test_a_file_that_was_removed_or_exchanged_gets_nothing_acknowledged(tmp_path):
    store = make_store(f"sqlite://{tmp_path}/memory.db")
    await store.open()
    await write_versions(store, ALICE, 2)
    assert await store.look_again()
    (tmp_path / "memory.db").rename(tmp_path / "elsewhere.db")
    assert not await store.look_again()
    await _nothing_is_acknowledged(store, "CORRUPT_MEMORY")
    (tmp_path / "memory.db").write_bytes(b"")
    assert not await store.look_again()
    (tmp_path / "elsewhere.db").rename(tmp_path / "memory.db")
    assert await store.look_again()
    await _all_is_acknowledged(store)
    await store.close()


async def test_a_files_key_that_was_removed_gets_nothing_acknowledged(tmp_path):
    store = make_store(f"sqlite://{tmp_path}/memory.db")
    await store.open()
    await write_versions(store, ALICE, 2)
    (tmp_path / "memory.db.key").rename(tmp_path / "elsewhere")
    assert not await store.look_again()
    await _nothing_is_acknowledged(store, "SECRET_LOST")
    (tmp_path / "elsewhere").rename(tmp_path / "memory.db.key")
    assert await store.look_again()
    await store.close()


async def _nothing_is_acknowledged(store, reason, *, at=2):
    calls = [
        lambda: store.commit(ALICE, step(at, small(3), request_id="refused")),
        lambda: store.commit(BOB, step(0, small(1), request_id="refused")),
    ]
    if at:
        calls += [
            lambda: store.rollback(ALICE, to_version=1, request_id="back"),
            lambda: store.find_request(ALICE, f"request-{at - 1}", "d"),
        ]
    for call in calls:
        with pytest.raises(Unavailable) as refused:
            await call()
        assert refused.value.reason == reason
        assert "127.0.0.1" not in str(refused.value)
    assert (await store.head(ALICE)).version == at


async def _all_is_acknowledged(store):
    assert isinstance(await store.commit(ALICE, step(2, small(3), request_id="refused")), Committed)
    assert (await store.rollback(ALICE, to_version=2, request_id="back")).version == 4
    assert (await store.find_request(ALICE, "request-1", "d")).version == 2
