"""Whole pods on the bundled checkpoint, over gRPC: Adapts, returning users, memory of those who stay."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from benchmarks.report import Figure
from benchmarks.store.operations import DURABILITIES
from benchmarks.store.valkey import Valkey, valkey
from hope_serve.cli.load import Load, Taught
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.config import load_config

VOCAB = 4096
LESSON_TOKENS = 64
PIECE_TOKENS = 4096
LEARNED = (1000, 8000, 32_000, 128_000)
LEARN_SECONDS = 900.0


async def pods(home: Path, *, quick: bool) -> list[Figure]:
    """Everything that needs an engine."""
    figures: list[Figure] = []
    for durability in DURABILITIES:
        async with valkey(home, "pod", durability) as server, served(home, server) as (client, _):
            figures += await adapts(client, durability, 3.0 if quick else 15.0)
    async with valkey(home, "returning", "local_fsync") as server:
        async with served(home, server) as (client, _):
            figures += await written(client, server, 4 if quick else 16)
            figures += await returning(client, (256, 1024) if quick else LEARNED, rounds=5 if quick else 25)
        async with served(home, server) as (client, process):
            figures += await warm_users(client, process, 20 if quick else 200)
    return figures


async def adapts(client: AsyncHopeClient, durability: str, seconds: float) -> list[Figure]:
    """Short lessons of 8 users at once, one after the other for each."""
    done = 0
    lesson = _tokens(LESSON_TOKENS)
    await asyncio.gather(*(client.adapt(f"user-{number}", lesson) for number in range(8)))
    began = time.perf_counter()

    async def user(number: int) -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            result = await client.adapt(f"user-{number}", lesson)
            assert result.durability.value == durability
            done += 1

    await asyncio.gather(*(user(number) for number in range(8)))
    rate = done / (time.perf_counter() - began)
    return [Figure(f"Adapts of {LESSON_TOKENS} tokens, 8 users at once, {durability}", rate, "1/s per pod")]


async def written(client: AsyncHopeClient, server: Valkey, count: int) -> list[Figure]:
    """Bytes that an Adapt sends to the store, by the store's own count of what it received, against a whole memory."""
    lesson = _tokens(LESSON_TOKENS)
    whole = (await client.get_model()).memory_bytes
    await client.adapt("writer", _tokens(256 + 1))
    before = server.info()["total_net_input_bytes"]
    for _ in range(count):
        await client.adapt("writer", lesson)
    each = (server.info()["total_net_input_bytes"] - before) / count
    return [
        Figure(f"bytes written per Adapt of {LESSON_TOKENS} tokens", each, "bytes"),
        Figure("a full rewrite", float(whole), "bytes"),
        Figure("the first over the second", each / whole, "share"),
    ]


async def returning(client: AsyncHopeClient, learned: tuple[int, ...], *, rounds: int) -> list[Figure]:
    """First token of a user whose memory comes from the store, by how much it had learned.

    What would take longer than LEARN_SECONDS to learn at the pace of what came before is left out; the figures' names
    say what was learned.
    """
    load = Load(client, vocab_size=VOCAB, prompt_tokens=32, max_tokens=2)
    await load.together(4)
    users: list[Taught] = []
    pace = 0.0
    for count in learned:
        if pace * count > LEARN_SECONDS:
            break
        began = time.perf_counter()
        users.append(await load.taught(count, PIECE_TOKENS))
        pace = (time.perf_counter() - began) / count
    reports = await load.returning(users, rounds)
    first = [report.first_token_ms["p50"] for report in reports]
    middle = sorted(first)[len(first) // 2]
    farthest = max((ms / middle for ms in first), key=lambda ratio: abs(ratio - 1))
    return [
        *(
            Figure(f"restore to first token, {report.adapted_tokens:,} tokens learned", ms, "ms")
            for report, ms in zip(reports, first, strict=True)
        ),
        Figure("the farthest from the middle one, over it", farthest, "times", "0.9 to 1.1"),
    ]


async def warm_users(client: AsyncHopeClient, process: ServerProcess, count: int) -> list[Figure]:
    """RAM that a pod takes for each memory it has at hand."""
    await client.adapt("first", _tokens(300))
    for number in range(count):
        await client.fork_memory("first", f"warm-{number}")
    resident = psutil.Process(process.pid).memory_info
    before = resident().rss
    for number in range(count):
        assert not (await client.warm_memory(f"warm-{number}")).was_warm
    each = (resident().rss - before) / count
    size = (await client.get_memory("first")).num_bytes
    return [
        Figure("pod RAM per warm user", each / 1024, "KiB"),
        Figure("its memory in the store", size / 1024, "KiB"),
    ]


@asynccontextmanager
async def served(home: Path, store: Valkey) -> AsyncIterator[tuple[AsyncHopeClient, ServerProcess]]:
    """A server process on the bundled checkpoint and this store, and a client of it."""
    options = {"checkpoint": str(load_config().model.checkpoint), "memory": store.url, "device": "cpu"}
    server = await asyncio.to_thread(lambda: ServerProcess(log=home / f"{store.port}.log", **options))
    try:
        async with AsyncHopeClient(server.target, ChannelOptions(timeout_seconds=3600)) as client:
            yield client, server
    finally:
        await asyncio.to_thread(server.stop)


def _tokens(count: int) -> list[int]:
    draw = random.Random(count)
    return [draw.randrange(16, VOCAB) for _ in range(count)]
