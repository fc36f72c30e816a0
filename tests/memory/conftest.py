import asyncio
import time

import pytest
from support.redis_server import RedisServer
from support.redis_storage import RedisStorage
from support.store_sqlite import SqliteStorage

from hope_serve.memory.keys import new_key, single_key
from hope_serve.memory.redis.make import install_functions


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A server for the tests that leave it as it is. It does not wait for the disk: no test of these kills it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), appendonly="no").start()
    yield server
    server.kill()


@pytest.fixture
async def server(tmp_path):
    """A server for the tests that break it: it waits for the disk."""
    server = RedisServer(tmp_path / "server").start()
    await install_functions(server.url)
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "sqlite-encrypted", "redis", "redis-encrypted"])
async def storage(request, tmp_path):
    """A place to keep memories: ``await storage.store()`` opens a store on it, as often as pods are needed."""
    kind, _, encrypted = request.param.partition("-")
    keys = single_key(new_key(), key_id="k1", encrypts=True) if encrypted else None
    if kind == "sqlite":
        kept = SqliteStorage(tmp_path, keys)
    else:
        kept = RedisStorage(request.getfixturevalue("redis_server"), keys)
        await kept.prepare()
    yield kept
    await kept.close()


@pytest.fixture
async def store(storage):
    return await storage.store()


@pytest.fixture
def longest_pause():
    """``await longest_pause(work)``: the longest time in seconds for which the work kept others off the event loop.

    The best of three goes, because whoever shares the machine can hold up any one of them.
    """

    async def measure(work):
        return min([await _longest_pause(work) for _ in range(3)])

    return measure


async def _longest_pause(work):
    task = asyncio.create_task(work())
    longest, last = 0.0, time.perf_counter()
    while not task.done():
        await asyncio.sleep(0.002)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest
