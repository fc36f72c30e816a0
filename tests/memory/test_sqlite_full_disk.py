"""A disk without a byte left, really so: commits are refused, reads go on, and erasing works."""

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest
from support.store_memories import ALICE, BOB, MODEL, memory, session, small, step, tensor, write_versions
from support.store_sqlite import SqliteStorage

from hope_serve.api import Owner
from hope_serve.errors import Exhausted, NotFound
from hope_serve.memory.snapshot import Snapshot, TensorBytes
from hope_serve.memory.sqlite import full_disk
from hope_serve.memory.store import Committed, Duplicate

SECRET = b"the user's own secret, sixty-four bytes of it, to be found later"


@pytest.fixture
def disk(tmp_path):
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
async def storage(disk):
    kept = SqliteStorage(disk)
    yield kept
    await kept.close()


def fill(disk):
    """Take every byte."""
    with (disk / "filler").open("ab", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(b"x" * 2**12)


def with_secret(num_bytes):
    """A memory of so many bytes, the secret at the end of each quarter MiB."""
    piece = tensor("filling", 2**18 - len(SECRET)).data + SECRET
    data = bytes(piece) * (num_bytes // 2**18)
    tensors = {"t": TensorBytes(dtype="uint8", shape=(len(data),), data=data)}
    return Snapshot(fingerprint=MODEL, schema=1, tensors=tensors, counters={})


@pytest.mark.parametrize("num_bytes", [2**18, 4 * 2**20], ids=["small", "larger than the room"])
async def test_a_memory_is_erased_from_a_full_disk_to_the_last_byte(disk, storage, num_bytes, monkeypatch):
    monkeypatch.setattr(full_disk, "MAX_RESERVE_BYTES", 2 * 2**20)
    store = await storage.store()
    await store.commit(ALICE, step(0, with_secret(num_bytes)))
    await store.save_session(ALICE, "s", session(1, base=1), ttl_seconds=60)
    await write_versions(store, BOB, 1, make=memory)
    fill(disk)
    newest = await commit_until_full(store, BOB, after=1)
    assert isinstance(await store.commit(BOB, step(0, memory(1))), Duplicate), "a retry is told what it was told"
    receipt = await store.erase(ALICE)
    assert (receipt.versions_removed, receipt.sessions_removed) == (1, 1)
    assert await store.erase(ALICE) == receipt
    assert SECRET not in b"".join(path.read_bytes() for path in disk.iterdir() if path.name != "filler")
    with pytest.raises(NotFound):
        await store.load(ALICE, fingerprint=MODEL)
    assert (await store.load(BOB, fingerprint=MODEL)).version == newest
    (disk / "filler").unlink()
    assert isinstance(await store.commit(BOB, step(newest, memory(2), request_id="room again")), Committed)


async def test_a_disk_that_memories_themselves_have_filled_is_erased_from(disk, storage):
    store = await storage.store()
    await write_versions(store, ALICE, 3, make=memory)
    for number in range(100):
        await commit_until_full(store, owner := Owner(tenant="acme", user=f"u{number}"), after=0, most=3)
        if not (await store.head(owner)).exists or (await store.head(owner)).version < 3:
            break
    assert (await store.erase(ALICE)).versions_removed == 3
    assert await commit_until_full(store, owner, after=(await store.head(owner)).version) > 0


async def commit_until_full(store, owner, *, after, most=100):
    """The newest version that there was room for."""
    for version in range(after, after + most):
        try:
            await store.commit(owner, step(version, memory(version + 1)))
        except Exhausted as error:
            assert "no room left" in str(error)
            return version
    return after + most


async def test_one_erasure_after_the_other_fits_into_the_room_that_is_kept(disk, storage):
    store = await storage.store()
    for owner in (ALICE, BOB):
        await write_versions(store, owner, 3, make=memory)
    fill(disk)
    for owner in (ALICE, BOB):
        assert (await store.erase(owner)).versions_removed == 3
        assert reserve(storage).stat().st_size > 2**20


async def test_a_server_that_starts_on_a_full_disk_erases_as_well(disk, storage):
    first = await storage.store()
    await write_versions(first, ALICE, 3, make=memory)
    await first.close()
    fill(disk)
    store = await storage.store()
    assert (await store.load(ALICE, fingerprint=MODEL)).version == 3
    assert (await store.erase(ALICE)).versions_removed == 3


async def test_an_erasure_that_was_broken_off_is_done_by_the_next(storage, monkeypatch):
    store = await storage.store()
    await write_versions(store, ALICE, 3, make=memory)
    await write_versions(store, BOB, 1)
    pages = await store._backend._database._writing.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    assert pages
    monkeypatch.setattr(full_disk.rows, "erase", fails_once(full_disk.rows.erase, times=2))
    with pytest.raises(Exhausted):
        await store.erase(ALICE)
    assert (await store.erase(ALICE)).versions_removed == 0
    assert not (await store.head(ALICE)).exists
    assert (await store.load(BOB, fingerprint=MODEL)).version == 1
    assert isinstance(
        await store.commit(ALICE, step((await store.head(ALICE)).version, small(1), request_id="n")), Committed
    )


def fails_once(erase, *, times):
    left = [times]

    def failing(*arguments):
        if left[0]:
            left[0] -= 1
            raise Exhausted("no room left", reason="STORE_FULL")
        return erase(*arguments)

    return failing


def reserve(storage) -> Path:
    return storage.path.with_name(storage.path.name + ".reserve")


async def test_a_disk_without_room_to_keep_serves_and_says_so(disk, storage, caplog, monkeypatch):
    await (await storage.store()).close()
    reserve(storage).unlink()
    fill(disk)
    with (disk / "filler").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 2**17)
    monkeypatch.setattr(full_disk, "RESERVE_SHARE", 0.1)
    store = await storage.store()
    await write_versions(store, ALICE, 1)
    monkeypatch.undo()
    assert "erasing a memory may be refused" in caplog.text
    assert not reserve(storage).stat().st_size
    (disk / "filler").unlink()
    await store.erase(ALICE)
    await asyncio.sleep(0)
    assert reserve(storage).stat().st_size > 2**20
