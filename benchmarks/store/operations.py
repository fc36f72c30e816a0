"""The store alone: commits, restores, and what other clients of the server notice of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.report import Figure
from benchmarks.store.samples import MIB, MODEL, counters_alone, memory, owner, percentile, seconds_of, write
from benchmarks.store.valkey import Valkey, stored, valkey
from hope_serve.api import Owner
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.memory.snapshot import Snapshot
from hope_serve.memory.store import Committed

SIZES = (1, 8, 32)
DURABILITIES = ("volatile", "local_fsync", "replicated_fsync")


async def operations(home: Path, *, quick: bool) -> list[Figure]:
    """One store at a time: commits at each durability, then restores and what others notice."""
    figures = disk(home, 20 if quick else 200)
    for durability in DURABILITIES:
        async with valkey(home, "commits", durability) as server, stored(server.url) as store:
            figures += await round_trips(store, durability, 50 if quick else 400)
            for size in SIZES:
                figures += await commits(store, size, durability, 50 if quick else 400)
    async with valkey(home, "reads", "local_fsync") as server, stored(server.url) as store:
        for size in SIZES:
            figures += await restores(store, size, 10 if quick else 100)
        figures += await neighbours(server, store, 3.0 if quick else 10.0)
    for durability in DURABILITIES:
        async with valkey(home, "users", durability) as server, stored(server.url) as store:
            figures += await commits_a_second(store, durability, 1.0 if quick else 5.0)
    return figures


def disk(home: Path, rounds: int) -> list[Figure]:
    """What a commit at local_fsync cannot be faster than."""
    took = []
    with (home / "fsync").open("wb", buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return [Figure("an fsync of 4 KiB on this disk: p50", percentile(took, 50), "ms")]


async def round_trips(store: SealedStore, durability: str, rounds: int) -> list[Figure]:
    """What any call to the store cannot be faster than on this machine, just now."""
    await seconds_of(store.ping, 20)
    took = await seconds_of(store.ping, rounds)
    return [Figure(f"a ping of the {durability} store: p50", percentile(took, 50), "ms")]


async def commits(store: SealedStore, size: int, durability: str, rounds: int) -> list[Figure]:
    """Commits that write counters and nothing else."""
    who = owner(f"unmoved-{size}-{durability}")
    base = await write(store, who, None, content := memory(size * MIB))
    unmoved = frozenset(content.tensors)

    async def commit() -> None:
        nonlocal base
        base = await write(store, who, base, counters_alone(base.version), unmoved)

    await seconds_of(commit, 20)
    took = await seconds_of(commit, rounds)
    await store.erase(who)
    name = f"commit, {size} MiB memory, no level moved, {durability}"
    return [
        Figure(f"{name}: p50", percentile(took, 50), "ms", "" if durability == "replicated_fsync" else "<= 1"),
        Figure(f"{name}: p99", percentile(took, 99), "ms"),
    ]


async def restores(store: SealedStore, size: int, rounds: int) -> list[Figure]:
    """Reads of a whole memory, every byte checked and decrypted."""
    who = owner(f"restored-{size}")
    await write(store, who, None, memory(size * MIB))
    await store.load(who, fingerprint=MODEL)
    took = await seconds_of(lambda: store.load(who, fingerprint=MODEL), rounds)
    await store.erase(who)
    return [Figure(f"restore of {size} MiB: p{p}", percentile(took, p), "ms") for p in (50, 99)]


async def neighbours(server: Valkey, store: SealedStore, seconds: float) -> list[Figure]:
    """What a client in another process waits for a small read, while memories of 32 MiB are written one by one."""
    quiet = await _neighbour(server, seconds, asyncio.sleep(0))
    who, content, writes = owner("writer"), memory(32 * MIB), 0

    async def writing() -> None:
        nonlocal writes
        base = None
        while True:
            base = await write(store, who, base, content)
            writes += 1

    busy = await _neighbour(server, seconds, writing())
    await store.erase(who)
    return [
        Figure("another client's small read, server idle: p99", percentile(quiet, 99), "ms"),
        Figure("another client's small read during 32 MiB writes: p50", percentile(busy, 50), "ms"),
        Figure("another client's small read during 32 MiB writes: p99", percentile(busy, 99), "ms", "<= 30"),
        Figure("32 MiB written meanwhile", writes / seconds, "memories/s"),
    ]


async def commits_a_second(store: SealedStore, durability: str, seconds: float) -> list[Figure]:
    """32 users at once, each commit writing half of a 1 MiB memory: what one pod's store could take of Adapts."""
    done, whole = 0, memory(MIB)
    half = {name: tensor for i, (name, tensor) in enumerate(whole.tensors.items()) if i % 2}
    unmoved = frozenset(whole.tensors.keys() - half.keys())
    users = [owner(f"user-{number}") for number in range(32)]
    begun = [await write(store, who, None, whole) for who in users]
    began = time.perf_counter()

    async def go_on(who: Owner, base: Committed) -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            snapshot = Snapshot(fingerprint=MODEL, schema=1, tensors=half, counters={"tokens": base.version})
            base = await write(store, who, base, snapshot, unmoved)
            done += 1

    await asyncio.gather(*(go_on(who, base) for who, base in zip(users, begun, strict=True)))
    rate = done / (time.perf_counter() - began)
    return [Figure(f"commits that write 0.5 of 1 MiB, 32 users at once, {durability}", rate, "1/s")]


async def _neighbour(server: Valkey, seconds: float, work) -> list[float]:
    """Seconds that each read of the neighbour took while ``work`` went on."""
    command = [sys.executable, "-m", "benchmarks.store.neighbour", str(server.port), str(seconds)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    task = asyncio.ensure_future(work)
    try:
        waits = json.loads(await process.stdout.read())
    finally:
        await process.wait()
        task.cancel()
        await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()):
        raise error
    return waits
