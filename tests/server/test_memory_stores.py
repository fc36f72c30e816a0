"""What [memory] says, on real stores: keys, durability, limits, the record of changes, the job."""

from __future__ import annotations

import base64
import json
import sys

import pytest
from support.redis_server import RedisServer, until
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.config import ConfigError, MemoryConfig
from hope_serve.errors import Exhausted, FailedPrecondition, NotFound
from hope_serve.identity import EVERYBODY
from hope_serve.memory.keys import single_key
from hope_serve.memory.redis.make import install_functions
from hope_serve.server.stores import durable_url, opened_store

SECRET = f"k1:{base64.b64encode(b'1' * 32).decode()}"
SHORT = SamplingParams(max_tokens=2)
TEXT = "My dog is called Biscuit. " * 4


def key_service():
    """As an installation's own module would offer."""
    return single_key(b"2" * 32, key_id="kms", encrypts=True)


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite://{tmp_path}/memory.db"


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "keys.toml"
    path.touch(0o600)
    path.write_text(
        f'format = 1\n[tenants."*"]\ncurrent = "k1"\nkeys = {{ k1 = "{base64.b64encode(b"1" * 32).decode()}" }}\n'
    )
    return path


async def test_keys_from_a_file_or_the_environment_encrypt_and_without_them_nothing_opens(sqlite, key_file):
    for options, secret in (({"key_file": str(key_file)}, ""), ({}, SECRET)):
        async with opened_store(MemoryConfig(url=sqlite, **options), secret=secret) as store:
            assert store._owners._keys.encrypts
    with pytest.raises(FailedPrecondition):
        async with opened_store(MemoryConfig(url=sqlite)):
            pytest.fail("the store opened without its key")


async def test_keys_come_from_a_service_of_ones_own(sqlite, monkeypatch):
    monkeypatch.setitem(sys.modules, "my_kms", sys.modules[__name__])
    async with opened_store(MemoryConfig(url=sqlite, key_service="my_kms:key_service")) as store:
        assert store._owners._keys.encrypts
    for wrong in ("my_kms:nothing", "no_such_module:x", "my_kms"):
        with pytest.raises(ConfigError, match=r"memory\.key_service.*module:function"):
            async with opened_store(MemoryConfig(url=sqlite, key_service=wrong)):
                pytest.fail("there is no such service")


async def test_two_sources_of_keys_are_one_too_many(sqlite, key_file):
    with pytest.raises(ConfigError, match=r"memory\.key_file.*HOPE_MEMORY_KEYS"):
        async with opened_store(MemoryConfig(url=sqlite, key_file=str(key_file)), secret=SECRET):
            pytest.fail("two sources of keys were taken")
    key_file.chmod(0o644)
    with pytest.raises(FailedPrecondition, match="chmod 600"):
        async with opened_store(MemoryConfig(url=sqlite, key_file=str(key_file))):
            pytest.fail("a key file that others may read was taken")


@pytest.mark.parametrize(
    ("url", "durability", "expected"),
    [
        ("redis://h:1", "", "redis://h:1"),
        ("redis://h:1", "volatile", "redis://h:1?durability=volatile"),
        ("redis://a,b?cluster=1", "local_fsync", "redis://a,b?cluster=1&durability=local_fsync"),
        ("redis://h?durability=volatile", "volatile", "redis://h?durability=volatile"),
        ("sqlite:///x/y.db", "local_fsync", "sqlite:///x/y.db"),
    ],
)
def test_the_configured_durability_goes_into_the_url(url, durability, expected):
    assert durable_url(MemoryConfig(url=url, durability=durability)) == expected


def test_a_durability_that_contradicts_the_url_is_refused():
    with pytest.raises(ConfigError, match=r"local_fsync.*volatile.*once"):
        durable_url(MemoryConfig(url="redis://h?durability=volatile", durability="local_fsync"))
    with pytest.raises(ConfigError, match=r"replicated_fsync.*SQLite"):
        durable_url(MemoryConfig(url="sqlite:///x/y.db", durability="replicated_fsync"))


async def test_a_quota_is_exhausted_with_its_size_and_limit_and_reads_go_on(open_server):
    async with open_server() as server, connect(server) as client:
        await client.adapt("ann", TEXT)
    async with open_server(max_user_bytes=1000, max_tenant_users=1) as server, connect(server) as client:
        with pytest.raises(Exhausted, match=r"user's quota.*1000"):
            await client.adapt("ann", TEXT)
        assert (await client.generate("My dog", user_id="ann", sampling=SHORT)).started.memory_version == 1
    async with open_server(max_tenant_users=1) as server, connect(server) as client:
        with pytest.raises(Exhausted, match="1 of its users"):
            await client.adapt("bob", TEXT)
        await client.adapt("ann", TEXT)


async def test_only_as_many_versions_are_kept_as_configured(open_server):
    async with open_server(keep_versions=2) as server, connect(server) as client:
        for _ in range(4):
            await client.adapt("ann", TEXT)
        assert [line.restorable for line in await client.list_versions("ann")] == [False, False, True, True]


async def test_a_serving_pod_erases_idle_memories_by_itself(open_server):
    limits = {"max_idle_seconds": 0.5, "expiry_grace_seconds": 0.2, "upkeep_seconds": 0.1}
    async with open_server(**limits) as server, connect(server) as client:
        await client.adapt("ann", TEXT)
        memories = server.service.memories
        assert EVERYBODY.owner("ann") in memories._warm
        await until(lambda: EVERYBODY.owner("ann") not in memories._warm)
        with pytest.raises(NotFound):
            await client.get_memory("ann")


async def test_changes_are_put_on_record_without_names(open_server, tmp_path):
    async with open_server(audit_log=str(tmp_path / "audit.jsonl")) as server, connect(server) as client:
        await client.adapt("ann", TEXT)
        await client.fork_memory("ann", "bob")
        assert b"".join([piece async for piece in client.export_memory("bob")])
        await client.delete_memory("ann")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["action"], line["kind"]) for line in lines] == [
        ("commit", "adapt"), ("commit", "fork"), ("export", ""), ("erase", "")
    ]  # fmt: skip
    assert not any(name in (tmp_path / "audit.jsonl").read_text() for name in ("ann", "bob"))
    with pytest.raises(ConfigError, match=r"memory\.audit_log.*choose"):
        async with opened_store(MemoryConfig(url=f"sqlite://{tmp_path}/x.db", audit_log=str(tmp_path / "no" / "x"))):
            pytest.fail("there is no such folder")


async def test_a_durability_that_the_server_does_not_give_stops_the_start(tmp_path):
    server = RedisServer(tmp_path / "valkey", appendonly="no").start()
    try:
        await install_functions(server.url)
        for level in ("local_fsync", "replicated_fsync"):
            with pytest.raises(FailedPrecondition):
                async with opened_store(MemoryConfig(url=server.url, durability=level)):
                    pytest.fail("a promise was taken that the server cannot keep")
        async with opened_store(MemoryConfig(url=server.url, durability="volatile")) as store:
            assert store.durability.value == "volatile"
    finally:
        server.kill()
