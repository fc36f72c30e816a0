"""A serving pod whose store is told to be careless, loses its secret, or whose own clock is wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.request

import pytest
from support.redis_server import RedisServer
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.client import HopeClient
from hope_serve.errors import FailedPrecondition, Unavailable
from hope_serve.memory.redis.make import install_functions

ADMITTED_SECONDS = 5.0
"""Within which a pod has to notice."""
SHORT = SamplingParams(max_tokens=2)


@pytest.fixture
async def redis(tmp_path):
    server = RedisServer(tmp_path / "redis").start()
    await install_functions(server.url)
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("careless", "careful", "reason"),
    [
        (("CONFIG", "SET", "appendfsync", "everysec"), ("CONFIG", "SET", "appendfsync", "always"), "STORE_SETTINGS"),
        (
            ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
            ("CONFIG", "SET", "maxmemory-policy", "noeviction"),
            "STORE_SETTINGS",
        ),
        (("RENAME", "hs:secret", "hs:aside"), ("RENAME", "hs:aside", "hs:secret"), "SECRET_LOST"),
    ],
)
async def test_a_pod_stops_acknowledging_within_seconds_says_why_and_recovers_by_itself(
    open_server, redis, careless, careful, reason
):
    """With the configured default of ``check_seconds``."""
    async with open_server(url=redis.url) as server, connect(server) as client:
        await client.adapt("ann", "My dog is called Biscuit.")
        assert _metric(server) == 1
        redis.command(*careless)
        began, refused = time.monotonic(), None
        while refused is None:
            assert time.monotonic() - began < ADMITTED_SECONDS
            refused = await _refusal(client)
            await asyncio.sleep(0.05)
        assert refused.reason == reason
        assert await asyncio.to_thread(_metric, server) == 0
        await client.generate("tea", user_id="ann", sampling=SHORT)
        assert await _refusal(client)
        redis.command(*careful)
        began = time.monotonic()
        while await _refusal(client):
            assert time.monotonic() - began < ADMITTED_SECONDS
            await asyncio.sleep(0.05)
        assert await asyncio.to_thread(_metric, server) == 1


async def test_a_store_that_lost_its_secret_refuses_new_pods(open_server, redis):
    async with open_server(url=redis.url) as server, connect(server) as client:
        await client.adapt("ann", "My dog is called Biscuit.")
    redis.command("DEL", "hs:secret")
    with pytest.raises(FailedPrecondition) as refused:
        async with open_server(url=redis.url):
            pass
    assert refused.value.reason == "SECRET_LOST"


FAKED = """
import sys, time
honest = time.time
time.time = lambda: honest() + 400 * 86_400
from hope_serve.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_a_pod_whose_clock_is_400_days_off_erases_nothing(open_server, redis, checkpoint_folder, tmp_path, kind):
    """Its passes over the store come every tenth of a second, and everything looks idle to it."""
    url = redis.url if kind == "redis" else f"sqlite://{tmp_path}/memory.db"
    settings = {"url": url, "max_idle_seconds": 30 * 86_400.0, "upkeep_seconds": 0.1}
    async with open_server(**settings) as server, connect(server) as client:
        await client.adapt("ann", "My dog is called Biscuit.")
    sets = [part for name, value in settings.items() for part in ("--set", f"memory.{name}={value}")]
    where = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--checkpoint", str(checkpoint_folder))
    said = await asyncio.to_thread(_served_for_a_while, ["serve", "--device", "cpu", *where, *sets])
    assert ("differ by" in said) if kind == "redis" else ("1 are in quarantine" in said)
    async with open_server(**settings) as server, connect(server) as client:
        await asyncio.sleep(0.5)
        assert (await client.get_memory("ann")).version == 1


def _served_for_a_while(arguments) -> str:
    """What a pod with the wrong clock logs."""
    command = [sys.executable, "-c", FAKED, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pod:
        try:
            target = pod.stdout.readline().partition("listens on ")[2].partition(";")[0]
            time.sleep(2)
            with HopeClient(target) as client:
                assert client.get_memory("ann").version == 1
        finally:
            pod.terminate()
            said = pod.communicate()[1]
    return said


async def _refusal(client) -> Unavailable | None:
    try:
        await client.adapt("ann", "I like tea.")
    except Unavailable as error:
        return error
    return None


def _metric(server, name="hope_store_promise_kept") -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


async def test_a_store_that_is_older_than_what_a_pod_has_seen_is_noticed(open_server, redis, caplog):
    """Somebody puts an old copy back while pods serve."""
    async with open_server(url=f"{redis.url}?durability=volatile") as server, connect(server) as client:
        await client.adapt("ann", "My dog is called Biscuit.")
        old = {key: redis.command("DUMP", key) for key in redis.command("KEYS", "hs:{*}:*")}
        await client.adapt("ann", "I like tea.")
        assert (await client.generate("tea", user_id="ann", sampling=SHORT)).started.memory_version == 2
        for key, value in old.items():
            redis.command("RESTORE", key, 0, value, "REPLACE")
        assert (await client.generate("tea", user_id="ann", sampling=SHORT)).started.memory_version == 1
        assert await asyncio.to_thread(_metric, server, "hope_version_regressions_total") == 1
        assert "version_regression" in caplog.text
        await client.generate("tea", user_id="ann", sampling=SHORT)
        assert await asyncio.to_thread(_metric, server, "hope_version_regressions_total") == 1  # once is enough
