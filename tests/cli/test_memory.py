"""``hope-serve memory``: each command as its users meet it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import stat

import pytest
from support.redis_server import RedisServer
from support.server_running import connect, server_config

from hope_serve.client import HopeClient
from hope_serve.server.serve import running

LESSON = "My dog is called Biscuit. " * 8
REFUSED, WRONG, UNREACHABLE = 1, 2, 3
NAMES = itertools.count()


@pytest.fixture
def ann(target):
    """A user of this test's own, with two versions."""
    user = f"ann{next(NAMES)}"
    with HopeClient(target) as client:
        client.adapt(user, LESSON)
        client.adapt(user, "I like tea without sugar. " * 8)
    return user


@pytest.fixture
def other():
    return f"bob{next(NAMES)}"


def memory(hope, target, command, *arguments):
    return hope("memory", command, *arguments, "--target", target)


def test_memories_are_listed_shown_turned_back_and_erased(hope, target, ann):
    assert ann in memory(hope, target, "ls").out
    assert "level 0" in memory(hope, target, "show", ann).out
    assert memory(hope, target, "versions", ann).out.count("adapt") == 2
    assert "version 3" in memory(hope, target, "rollback", ann, 1).out
    assert "rollback" in memory(hope, target, "versions", ann).out
    assert "receipt" in memory(hope, target, "rm", ann, "--yes").out
    gone = memory(hope, target, "show", ann)
    assert (gone.code, "no memory" in gone.err) == (REFUSED, True)


def test_a_memory_is_forked(hope, target, ann, other):
    assert "version 1" in memory(hope, target, "fork", ann, other, "--version", 1).out
    assert "fork" in memory(hope, target, "versions", other).out
    again = memory(hope, target, "fork", ann, other)
    assert (again.code, "erase it first" in again.err) == (REFUSED, True)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_memory_goes_into_a_file_and_out_again(hope, target, ann, other, tmp_path, sealed):
    file, words = tmp_path / "ann.hope", tmp_path / "words"
    words.write_text("correct horse battery\nnot this line\n")
    lock = ("--passphrase-file", words) if sealed else ()
    said = memory(hope, target, "export", ann, file, *lock)
    assert (said.code, ("anybody" in said.out)) == (0, not sealed)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "version 1" in memory(hope, target, "import", other, file, *lock).out
    with HopeClient(target) as client:
        assert client.get_memory(ann).state_digest == client.get_memory(other).state_digest
    if sealed:
        refused = memory(hope, target, "import", "carol", file)
        assert (refused.code, "passphrase" in refused.err) == (REFUSED, True)


def test_files_are_never_overwritten_and_never_left_half_written(hope, target, ann, tmp_path):
    file = tmp_path / "ann.hope"
    file.write_text("precious")
    assert memory(hope, target, "export", ann, file).code == WRONG
    assert file.read_text() == "precious"
    missing = memory(hope, target, "export", "nobody", tmp_path / "nobody.hope")
    assert (missing.code, list(tmp_path.iterdir())) == (REFUSED, [file])
    for arguments, said in (
        (("import", "carol", tmp_path / "none"), "cannot be read"),
        (("import", "carol", file, "--passphrase-file", tmp_path / "none"), "passphrase file"),
        (("export", ann, tmp_path / "no" / "folder"), "cannot be written"),
    ):
        refused = memory(hope, target, *arguments)
        assert (refused.code, said in refused.err) == (WRONG, True)
    damaged = memory(hope, target, "import", "carol", file)
    assert (damaged.code, "not a memory file" in damaged.err) == (REFUSED, True)


def test_texts_are_weighed_with_and_without_the_memory(hope, target, ann, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text("I like tea.\n\nMy sister lives in Bergen.\n")
    said = memory(hope, target, "evaluate", ann, LESSON, "--file", lines, "--json", "--version", 1, "--version", 2)
    plain, first, second = json.loads(said.out)
    assert [plain["version"], first["version"], second["version"]] == [0, 1, 2]
    assert len(second["scores"]) == 3
    assert "plain model" in memory(hope, target, "evaluate", ann, LESSON).out
    empty = memory(hope, target, "evaluate", ann)
    assert (empty.code, "probes" in empty.err) == (WRONG, True)


def test_a_memory_is_brought_near(hope, target, ann):
    assert "at hand" in memory(hope, target, "warm", ann).out
    assert "no memory" in memory(hope, target, "warm", "nobody").out


def test_without_a_server_the_remedy_is_named(hope):
    said = hope("memory", "ls", "--target", "127.0.0.1:1")
    assert (said.code, "hope-serve serve" in said.err) == (UNREACHABLE, True)


@pytest.fixture
async def taught(checkpoint_folder, tmp_path):
    """A folder with a store in which ann and bob have memories, and the record of how they came to."""
    config = server_config(checkpoint_folder, tmp_path, audit_log=str(tmp_path / "audit.jsonl"))
    async with running(config) as server, connect(server) as client:
        await client.adapt("ann", LESSON)
        await client.adapt("ann", LESSON)
        await client.adapt("bob", LESSON)
    return tmp_path


@pytest.fixture
def settings(taught):
    """``settings(key=value)`` writes a configuration around the store."""

    def written(**memory):
        values = {"url": f"sqlite://{taught}/memory.db", "audit_log": f"{taught}/audit.jsonl"} | memory
        path = taught / f"{next(NAMES)}.toml"
        path.write_text("[memory]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
        return path

    return written


async def test_the_record_of_changes_is_shown_whole_or_of_one_user(hope, settings):
    assert await _aside(hope, "memory", "audit", "--config", settings()) == 3
    assert await _aside(hope, "memory", "audit", "ann", "--config", settings()) == 2
    assert await _aside(hope, "memory", "audit", "ann", "--tenant", "acme", "--config", settings()) == 0
    assert await _aside(hope, "memory", "audit", "--config", settings(), "--limit", 1) == 1


async def test_a_store_is_moved_to_encrypted_keys_and_these_are_rotated(hope, settings, taught):
    keys = {name: base64.b64encode(name.encode() * 16).decode() for name in ("k1", "k2")}

    def key_file(current, *held):
        path = taught / f"keys-{next(NAMES)}"
        path.touch(0o600)
        table = ", ".join(f'{name} = "{keys[name]}"' for name in held)
        path.write_text(f'format = 1\n[tenants."*"]\ncurrent = "{current}"\nkeys = {{ {table} }}\n')
        return str(path)

    source, target = f"sqlite://{taught}/memory.db", f"sqlite://{taught}/moved.db"
    one = settings(url=target, key_file=key_file("k1", "k1"))
    both = settings(url=target, key_file=key_file("k2", "k1", "k2"))
    two = settings(url=target, key_file=key_file("k2", "k2"))
    moved = await _said(hope, "memory", "move", source, target, "--config", one)
    assert "2 memories were copied, 0 were there already" in moved.out
    assert "0 memories were copied, 2" in (await _said(hope, "memory", "move", source, target, "--config", one)).out
    early = await _said(hope, "memory", "rotate-keys", "--config", two)
    assert (early.code, "'k1'" in early.err) == (REFUSED, True)
    assert "2 of 2" in (await _said(hope, "memory", "rotate-keys", "--config", both)).out
    assert "0 of 2" in (await _said(hope, "memory", "rotate-keys", "--config", two)).out


async def test_upkeep_does_what_is_configured_and_says_when_that_is_nothing(hope, settings):
    assert "nothing to do" in (await _said(hope, "memory", "upkeep", "--config", settings())).out
    limits = {"max_idle_seconds": 0.01, "expiry_grace_seconds": 0.01, "max_tenant_users": 9}
    idle = await _said(hope, "memory", "upkeep", "--config", settings(**limits))
    assert "of 2 memories 0 were idle and are erased, 2 are in quarantine" in idle.out
    assert "is counted" in idle.out
    later = await _said(hope, "memory", "upkeep", "--config", settings(**limits))
    assert "of 2 memories 2 were idle and are erased, 0 are in quarantine" in later.out


async def test_functions_are_installed_and_without_them_a_server_says_how(hope, tmp_path):
    valkey = RedisServer(tmp_path / "valkey").start()
    try:
        before = await _said(hope, "memory", "upkeep", "--memory", valkey.url)
        assert (before.code, "install-functions" in before.err) == (UNREACHABLE, True)
        installed = await _said(hope, "memory", "install-functions", valkey.url)
        assert (installed.code, "epoch" in installed.out) == (0, True)
        assert (await _said(hope, "memory", "upkeep", "--memory", valkey.url)).code == 0
    finally:
        valkey.kill()


async def _said(hope, *arguments):
    """Commands run their own event loop."""
    return await asyncio.to_thread(hope, *arguments)


async def _aside(hope, *arguments):
    said = await _said(hope, *arguments)
    assert said.code == 0, said.err
    return said.out.count("commit")
