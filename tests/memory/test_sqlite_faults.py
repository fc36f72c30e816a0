"""The SQLite store's own troubles: files missing, cut, edited, foreign, full, locked."""

import asyncio
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support import store_worker
from support.store_memories import ALICE, BOB, MODEL, memory, small, step, write_versions
from support.store_sqlite import SqliteStorage

from hope_serve.errors import CorruptMemory, Exhausted, FailedPrecondition, HopeError, InvalidRequest, Unavailable
from hope_serve.memory.keys import new_key, single_key
from hope_serve.memory.sqlite import database
from hope_serve.memory.store import Committed
from hope_serve.memory.url import make_store
from hope_serve.memory.url_parts import split_url


@pytest.fixture
async def storage(tmp_path):
    kept = SqliteStorage(tmp_path)
    yield kept
    await kept.close()


@pytest.fixture
async def written(storage):
    """Alice's and Bob's memories in a file that nobody has open."""
    store = await storage.store()
    for owner in (ALICE, BOB):
        await write_versions(store, owner, 3, make=memory)
    await store.close()
    return storage


async def test_the_key_file_is_for_its_owner_alone(written):
    key_file = written.path.with_name("memories.db.key")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 0.5, 0.9])
async def test_a_truncated_file_is_an_error_and_never_a_fresh_start(written, size):
    whole = written.path.stat().st_size
    with written.path.open("r+b") as file:
        file.truncate(size if isinstance(size, int) else int(whole * size))
    cut = written.path.read_bytes()
    with pytest.raises(CorruptMemory, match="restore"):
        store = await written.store()
        for owner in (ALICE, BOB):
            await store.load(owner, fingerprint=MODEL)
    assert written.path.read_bytes()[: len(cut)] == cut


@pytest.mark.parametrize(
    ("edit", "lost"),
    [("DROP TABLE chunks", "chunks"), ("DROP TABLE owners", "owners"), ("DELETE FROM meta", "secret")],
)
async def test_a_file_that_lost_a_part_is_an_error_and_never_a_fresh_start(written, edit, lost):
    with closing(sqlite3.connect(written.path)) as connection, connection:
        connection.execute(edit)
    with pytest.raises(CorruptMemory, match=f"lost.*{lost}.*restore"):
        await written.store()


async def test_a_file_that_vanished_is_an_error(written):
    written.path.unlink()
    with pytest.raises(CorruptMemory, match="missing"):
        await written.store()


async def test_a_file_that_is_no_database_is_an_error(tmp_path, written):
    written.path.write_bytes(b"once upon a time " * 1000)
    with pytest.raises(CorruptMemory):
        await written.store()


async def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    storage = SqliteStorage(tmp_path)
    (await storage.store()), await storage.close()
    storage.path.unlink()
    with sqlite3.connect(storage.path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = storage.path.read_bytes()
    with pytest.raises(FailedPrecondition, match="another program"):
        await storage.store()
    assert storage.path.read_bytes() == before


async def test_a_newer_schema_is_refused_by_number(written):
    with sqlite3.connect(written.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FailedPrecondition, match="schema 99"):
        await written.store()


async def test_a_missing_or_damaged_key_file_is_told(written):
    key_file = written.path.with_name("memories.db.key")
    content = key_file.read_bytes()
    key_file.write_bytes(content[:-10])
    with pytest.raises(CorruptMemory, match="key file"):
        await written.store()
    key_file.unlink()
    with pytest.raises(FailedPrecondition, match="key file"):
        await written.store()
    key_file.write_bytes(content)
    assert (await (await written.store()).load(ALICE, fingerprint=MODEL)).version == 3


async def test_another_key_than_the_stores_is_refused(tmp_path, written):
    for other in (single_key(new_key(), encrypts=True), single_key(new_key(), key_id="k2", encrypts=False)):
        with pytest.raises(FailedPrecondition, match="key"):
            await written.store(keys=other)
    assert (await (await written.store()).load(ALICE, fingerprint=MODEL)).version == 3


def replace_database(path, content):
    path.write_bytes(content)
    for leftover in ("-wal", "-shm"):
        path.with_name(path.name + leftover).unlink(missing_ok=True)


@pytest.mark.parametrize("edits", [150, pytest.param(5000, marks=pytest.mark.nightly)])
async def test_an_edited_file_never_yields_a_wrong_or_an_empty_memory(tmp_path, written, edits):
    rng = random.Random(3)
    original = written.path.read_bytes()
    good = {name: bytes(t.data) for name, t in memory(3).tensors.items()}
    refused = 0
    for _ in range(edits):
        damaged = bytearray(original)
        for _ in range(rng.choice((1, 1, 8))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        replace_database(written.path, damaged)
        store = make_store(f"sqlite://{written.path}")
        try:
            await store.open()
            for owner in (ALICE, BOB):
                assert (await store.head(owner)).exists
                stored = await store.load(owner, fingerprint=MODEL)
                assert {name: bytes(t.data) for name, t in stored.snapshot.tensors.items()} == good
        except (CorruptMemory, FailedPrecondition):
            refused += 1
        finally:
            await store.close()
    assert refused > edits // 4


async def test_a_full_disk_refuses_commits_keeps_reads_and_recovers_by_itself(storage):
    store = await storage.store()
    await write_versions(store, ALICE, 2)
    pages = await limit_pages(store, 0)
    await limit_pages(store, pages + 2)
    with pytest.raises(Exhausted, match="no room"):
        await store.commit(ALICE, step(2, memory(3)))
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 2
    await limit_pages(store, 2**30)
    assert isinstance(await store.commit(ALICE, step(2, memory(3))), Committed)


async def limit_pages(store, count):
    """Let the file grow no further than this; returns the pages it has when the count is 0."""

    def limit(connection):
        if count:
            return connection.execute(f"PRAGMA max_page_count = {count}").fetchone()[0]
        return connection.execute("PRAGMA page_count").fetchone()[0]

    return await store._backend._database._writing.run(limit)


async def test_a_file_locked_by_another_process_is_unavailable_and_reads_go_on(storage, monkeypatch, longest_pause):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    store = await storage.store()
    await write_versions(store, ALICE, 1)
    other = sqlite3.connect(storage.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="same request id"):
        await store.commit(ALICE, step(1, small(2)))

    async def write_in_vain():
        with pytest.raises(Unavailable):
            await store.delete_session(ALICE, "s")

    assert await longest_pause(write_in_vain) < 0.1
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 1
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(await store.commit(ALICE, step(1, small(2))), Committed)


async def test_too_many_waiting_calls_are_refused_rather_than_queued(storage, monkeypatch):
    monkeypatch.setattr(database, "MAX_WAITING", 4)
    store = await storage.store()
    await write_versions(store, ALICE, 1)
    results = await asyncio.gather(*(store.head(ALICE) for _ in range(20)), return_exceptions=True)
    assert {type(result).__name__ for result in results} == {"Head", "Exhausted"}
    assert (await store.head(ALICE)).version == 1


@pytest.mark.parametrize("attempt", range(5))
def test_a_process_killed_while_it_makes_the_file_leaves_one_that_opens(tmp_path, attempt):
    folder = tmp_path / "new"
    url = f"sqlite://{folder}/memories.db"
    process = subprocess.Popen([sys.executable, store_worker.__file__, url, "w"], stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 10
    while not folder.exists() and time.monotonic() < give_up:
        time.sleep(0.001)
    time.sleep(random.Random(attempt).uniform(0, 0.03))
    process.send_signal(signal.SIGKILL)
    process.wait()
    asyncio.run(open_once(url))


async def open_once(url):
    store = make_store(url)
    await store.open()
    await store.head(ALICE)
    await store.close()


async def test_processes_that_open_a_new_file_at_once_agree_on_its_key(tmp_path):
    stores = [make_store(f"sqlite://{tmp_path}/memories.db") for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    await write_versions(stores[0], ALICE, 1)
    for store in stores:
        assert (await store.load(ALICE, fingerprint=MODEL)).version == 1
        await store.close()


async def test_a_copy_of_the_folder_is_a_backup(tmp_path, written):
    shutil.copytree(written.path.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    store = make_store(f"sqlite://{tmp_path}/copy/memories.db")
    await store.open()
    assert (await store.load(BOB, fingerprint=MODEL)).version == 3
    await store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://relative.db", "mysql://x", "", "sqlite:///a/"])
def test_a_url_that_names_no_store_is_refused(url):
    with pytest.raises(InvalidRequest, match="memory"):
        make_store(url)


@pytest.mark.parametrize("url", ["sqlite:///rel.db", "sqlite:////rel.db"])
def test_a_file_in_the_root_folder_is_taken_for_a_relative_one_that_went_wrong(url):
    with pytest.raises(InvalidRequest, match=r"/rel\.db, in the root folder: .*write sqlite:rel\.db"):
        make_store(url)
    assert not Path("/rel.db.key").exists()


async def test_a_path_without_slashes_is_taken_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = make_store("sqlite:sub/rel.db")
    await store.open()
    await store.close()
    assert (tmp_path / "sub" / "rel.db").exists()
    assert split_url("sqlite:sub/rel.db").place == "sqlite:sub/rel.db"


@pytest.fixture
def read_only(tmp_path):
    """``with read_only(folder)``: the folder is mounted read-only over itself."""

    @contextmanager
    def mounted(folder):
        for options in (["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
            if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
                pytest.skip("may not mount here")
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)

    return mounted


async def test_a_file_on_a_read_only_mount_is_said_to_be_on_one(written, read_only):
    with read_only(written.path.parent), pytest.raises(FailedPrecondition, match="mounted read-only") as refused:
        await written.store()
    assert "same request id" not in str(refused.value)
    assert (await (await written.store()).load(ALICE, fingerprint=MODEL)).version == 3


async def test_no_file_is_made_on_a_read_only_mount(tmp_path, read_only):
    (tmp_path / "empty").mkdir()
    with read_only(tmp_path / "empty"):
        with pytest.raises(FailedPrecondition, match=r"key file .*Read-only file system.*mounted read-only"):
            make_store(f"sqlite://{tmp_path}/empty/memories.db")
        with pytest.raises(InvalidRequest, match=r"cannot be made .Read-only file system"):
            make_store(f"sqlite://{tmp_path}/empty/sub/memories.db")


async def test_a_closed_store_says_so(storage):
    store = await storage.store()
    await store.close()
    with pytest.raises(HopeError, match="closed"):
        await store.head(ALICE)
