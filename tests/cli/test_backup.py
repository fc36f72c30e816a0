"""``hope-serve memory backup|restore``: nothing acknowledged is missing, nothing unread is put in place."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from contextlib import closing

import pytest
from support.server_running import connect, server_config

from hope_serve.api import Owner
from hope_serve.memory.url import make_store
from hope_serve.server.serve import running

FAILED, WRONG = 1, 2
LESSON = "My dog is called Biscuit, and my sister lives in Bergen."


@pytest.fixture
async def served(checkpoint_folder, tmp_path):
    """A server in this process, and its client, with a memory of ann's."""
    async with running(server_config(checkpoint_folder, tmp_path)) as server, connect(server) as client:
        await client.adapt("ann", LESSON)
        yield client


@pytest.fixture
def store(tmp_path):
    return tmp_path / "memory.db"


@pytest.fixture
async def said(hope, store):
    """Commands run their own event loop."""

    async def run(*arguments, memory=f"sqlite://{store}"):
        return await asyncio.to_thread(hope, "memory", *arguments, "--memory", memory)

    return run


async def versions(path, user="ann"):
    """What a store of that file holds of the user."""
    opened = make_store(f"sqlite://{path}")
    await opened.open()
    try:
        return [report.version for report in await opened.versions(Owner(tenant="default", user=user))]
    finally:
        await opened.close()


async def test_a_backup_of_a_store_in_use_lacks_nothing_that_was_acknowledged(served, said, tmp_path):
    await served.adapt("ann", LESSON)
    copy = tmp_path / "copy.db"
    done = await said("backup", copy)
    assert (done.code, "1 memories in 2 versions" in done.out) == (0, True), done
    assert [stat.S_IMODE(path.stat().st_mode) for path in (copy, tmp_path / "copy.db.key")] == [0o600, 0o600]
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == ["copy.db", "copy.db.key"]
    await served.adapt("ann", LESSON)
    assert await versions(copy) == [1, 2]


async def test_a_backup_is_restored_and_what_was_there_is_kept(said, store, tmp_path, checkpoint_folder):
    config = server_config(checkpoint_folder, tmp_path)
    async with running(config) as server, connect(server) as client:
        await client.adapt("ann", LESSON)
        assert (await said("backup", tmp_path / "copy.db")).code == 0
        await client.adapt("ann", LESSON)
        await client.adapt("bob", LESSON)
    done = await said("restore", tmp_path / "copy.db")
    assert (done.code, "every byte checked" in done.out) == (0, True), done
    [former] = tmp_path.glob("memory.db.replaced-*")
    assert former.name in done.out
    assert await versions(store) == [1]
    former.with_name("memory.db.key" + former.name.removeprefix("memory.db")).rename(f"{former}.key")
    assert (await versions(former), await versions(former, "bob")) == ([1, 2], [1])
    async with running(config) as server, connect(server) as client:
        assert (await client.adapt("ann", LESSON)).version == 2


async def test_a_store_that_is_in_use_is_not_replaced(served, said, store, tmp_path):
    assert (await said("backup", tmp_path / "copy.db")).code == 0
    await served.adapt("ann", LESSON)
    refused = await said("restore", tmp_path / "copy.db")
    assert (refused.code, "is in use" in refused.err, "stop every server" in refused.err) == (FAILED, True, True)
    assert (await served.get_memory("ann")).version == 2
    assert not list(tmp_path.glob("*replaced*"))


@pytest.mark.parametrize("lost", ["the file", "its pages", "both files"])
async def test_a_store_that_is_lost_is_restored(said, store, tmp_path, checkpoint_folder, lost):
    async with running(server_config(checkpoint_folder, tmp_path)) as server, connect(server) as client:
        await client.adapt("ann", LESSON)
        assert (await said("backup", tmp_path / "copy.db")).code == 0
    if lost == "its pages":
        store.write_bytes(b"once upon a time " * 1000)
    else:
        store.unlink()
    if lost == "both files":
        (tmp_path / "memory.db.key").unlink()
    assert (await said("restore", tmp_path / "copy.db")).code == 0
    assert await versions(store) == [1]


DAMAGES = [
    ("a chunk", "UPDATE chunks SET data = zeroblob(length(data))", "failed their seals"),
    ("a manifest", "UPDATE versions SET manifest = x'00'", "failed their seals"),
    ("a head", "UPDATE owners SET num_bytes = num_bytes + 1", "failed their seals"),
    ("a reply", "UPDATE journal SET result = x'00'", "failed their seals"),
    ("a name", "UPDATE owners SET name = x'00'", "CORRUPT_MEMORY"),
    ("a table", "DROP TABLE sessions", "lost its tables sessions"),
    ("the schema", "PRAGMA user_version = 99", "schema 99"),
    ("the secret", "UPDATE meta SET value = x'00'", "KEY_MISMATCH"),
]


@pytest.mark.parametrize(("statement", "words"), [pytest.param(*row[1:], id=row[0]) for row in DAMAGES])
async def test_a_damaged_backup_is_not_restored_and_nothing_is_touched(served, said, tmp_path, statement, words):
    copy, target = tmp_path / "copy.db", tmp_path / "other" / "memory.db"
    assert (await said("backup", copy)).code == 0
    target.parent.mkdir()
    for suffix in ("", ".key"):
        shutil.copyfile(f"{copy}{suffix}", f"{target}{suffix}")
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute(statement)
    before = contents(target.parent)
    refused = await said("restore", copy, memory=f"sqlite://{target}")
    assert (refused.code, words in refused.err) == (FAILED, True), refused.err
    assert contents(target.parent) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ("bytes", "copy.db is damaged"),
        ("another key", "KEY_MISMATCH"),
        ("half a key", "copy.db.key is damaged"),
        ("no key", "copy.db.key is not there"),
        ("nothing there", "copy.db is not there"),
    ],
)
async def test_what_is_no_backup_is_refused_by_name(served, said, tmp_path, damage, word):
    copy, target = tmp_path / "copy.db", tmp_path / "other" / "memory.db"
    target.parent.mkdir()
    assert (await said("backup", copy)).code == 0
    if damage == "bytes":
        copy.write_bytes(copy.read_bytes()[:-5000])
    elif damage == "another key":
        key = tmp_path / "copy.db.key"
        key.write_text(json.dumps(json.loads(key.read_text()) | {"key": "00" * 32}))
    elif damage == "half a key":
        (tmp_path / "copy.db.key").write_text("{")
    else:
        (tmp_path / ("copy.db.key" if damage == "no key" else "copy.db")).unlink()
    refused = await said("restore", copy, memory=f"sqlite://{target}")
    assert (refused.code, word in refused.err) == (FAILED, True), refused
    assert not list(target.parent.iterdir())


async def test_a_backup_of_a_damaged_store_is_kept_and_the_damage_is_told(served, said, store, tmp_path):
    await served.adapt("bob", LESSON)
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE chunks SET data = zeroblob(length(data)) WHERE rowid = 1")
    done = await said("backup", tmp_path / "copy.db")
    assert (done.code, "1 memories" in done.out, "failed their seals" in done.err) == (FAILED, True, True)
    assert await versions(tmp_path / "copy.db", "bob") == [1]


async def test_a_backup_never_writes_over_a_file(served, said, tmp_path):
    for name in ("copy.db", "copy.db.key"):
        (tmp_path / name).write_text("mine")
        refused = await said("backup", tmp_path / "copy.db")
        assert (refused.code, "there already" in refused.err) == (WRONG, True)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    refused = await said("backup", tmp_path / "none" / "copy.db")
    assert (refused.code, "cannot be written" in refused.err) == (WRONG, True)


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_of_redis_the_way_to_do_it_is_named(said, tmp_path, command):
    refused = await said(command, tmp_path / "copy.db", memory="redis://user:secret@127.0.0.1:1")
    assert refused.code == WRONG
    for word in ("redis://127.0.0.1:1", "BGSAVE", "memory move"):
        assert word in refused.err
    assert "secret" not in refused.err
