"""Backups taken while users teach, by the procedures of deploy/README.md: what was acknowledged before is in them."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import pytest
from support.redis_server import RedisServer, until
from support.server_running import connect, server_config
from support.tiny_model import write_tiny_checkpoint

from hope_serve.errors import NotFound, Unavailable
from hope_serve.memory.redis.make import install_functions
from hope_serve.server.serve import running

USERS = [f"user {i}" for i in range(6)]
LESSONS = ("My dog is called Biscuit.", "I like tea.", "I live in Bergen.")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@asynccontextmanager
async def taught_all_the_time(client):
    """Every user's newest acknowledged version, in a dict that goes on growing while inside."""
    acknowledged, stop = dict.fromkeys(USERS, 0), asyncio.Event()

    async def teach(user):
        for number in range(10_000):
            if stop.is_set():
                return
            acknowledged[user] = (await client.adapt(user, LESSONS[number % len(LESSONS)])).version

    writers = [asyncio.create_task(teach(user)) for user in USERS]
    try:
        await until(lambda: min(acknowledged.values()) >= 2)
        yield acknowledged
    finally:
        stop.set()
        await asyncio.gather(*writers)


async def newest(client):
    """What a server knows of each user; reading with it shows that all of its bytes are there."""
    found = {}
    for user in USERS:
        with suppress(NotFound):
            found[user] = (await client.get_memory(user)).version
            evaluation = await client.evaluate_memory(user, ["tea"])
            assert evaluation[1].version == found[user]
    return found


async def hope(*arguments):
    """``hope-serve memory …`` in a process of its own."""
    command = [sys.executable, "-m", "hope_serve.cli", "memory", *map(str, arguments)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_an_online_backup_of_sqlite_under_load_has_all_that_was_acknowledged_when_it_began(checkpoint, tmp_path):
    config, store = server_config(checkpoint, tmp_path), f"sqlite://{tmp_path}/memory.db"
    async with running(config) as server, connect(server) as client:
        async with taught_all_the_time(client) as acknowledged:
            before = dict(acknowledged)
            await hope("backup", tmp_path / "copy.db", "--memory", store)
        after = await newest(client)
    assert any(after[user] > before[user] for user in USERS)  # they went on meanwhile
    await hope("restore", tmp_path / "copy.db", "--memory", store)
    async with running(config) as server, connect(server) as client:
        found = await newest(client)
        assert all(before[user] <= found[user] <= after[user] for user in USERS)
        assert (await client.adapt(USERS[0], LESSONS[0])).version == found[USERS[0]] + 1


async def test_a_dump_of_redis_under_load_is_restored_by_the_procedure_and_has_all_that_was_acknowledged_when_it_began(
    checkpoint, tmp_path
):
    redis = RedisServer(tmp_path / "redis").start()
    copy = tmp_path / "copy.rdb"
    try:
        await install_functions(redis.url)
        config = server_config(checkpoint, tmp_path, url=redis.url)
        async with running(config) as server, connect(server) as client:
            async with taught_all_the_time(client) as acknowledged:
                before = dict(acknowledged)
                await saved(redis, copy)
            after = await newest(client)
        assert any(after[user] > before[user] for user in USERS)
        redis.kill()
        redis = await restored(copy, tmp_path / "anew")
        config = server_config(checkpoint, tmp_path, url=redis.url)
        async with running(config) as server, connect(server) as client:
            found = await newest(client)
            assert all(before[user] <= found[user] <= after[user] for user in USERS)
            assert (await client.adapt(USERS[0], LESSONS[0])).version == found[USERS[0]] + 1
        redis.restart()  # from its log alone, as after any crash
        async with running(config) as server, connect(server) as client:
            assert (await newest(client))[USERS[0]] == found[USERS[0]] + 1
    finally:
        redis.kill()


async def test_a_dump_beside_which_a_server_starts_empty_is_not_taken_for_a_new_store(checkpoint, tmp_path):
    """So does one that has ``appendonly yes`` and finds no log: it leaves the dump unread."""
    redis = RedisServer(tmp_path / "redis").start()
    try:
        await install_functions(redis.url)
        config = server_config(checkpoint, tmp_path, url=redis.url)
        async with running(config) as server, connect(server) as client:
            await client.adapt(USERS[0], LESSONS[0])
        await saved(redis, tmp_path / "copy.rdb")
        redis.kill()
        redis = RedisServer(tmp_path / "anew")
        shutil.copyfile(tmp_path / "copy.rdb", tmp_path / "anew" / "dump.rdb")
        redis.start()
        with pytest.raises(Unavailable) as refused:
            async with running(server_config(checkpoint, tmp_path, url=redis.url)):
                pass
        assert refused.value.reason == "STORE_EMPTY"
    finally:
        redis.kill()


async def saved(redis, copy):
    """A dump by the server itself."""
    last = redis.command("LASTSAVE")
    await asyncio.sleep(1.1)  # it counts whole seconds
    redis.command("BGSAVE")
    await until(lambda: redis.command("LASTSAVE") != last)
    shutil.copyfile(redis.folder / "dump.rdb", copy)


async def restored(copy, folder):
    """A new server on the dump: started without a log, which is then written from what was read."""
    folder.mkdir()
    shutil.copyfile(copy, folder / "dump.rdb")
    server = RedisServer(folder, appendonly="no").start()
    server.command("CONFIG", "SET", "appendonly", "yes")
    busy = (b"aof_rewrite_in_progress:1", b"aof_rewrite_scheduled:1")
    await until(lambda: not any(word in server.command("INFO", "persistence") for word in busy))
    server.settings["appendonly"] = "yes"
    return server
