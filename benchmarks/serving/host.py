"""How fast this machine serves the bundled checkpoint, engine alone and through gRPC, in one run."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.report import Figure
from benchmarks.serving.precision import narrow_weights
from hope_serve.api import SamplingParams
from hope_serve.api.engine import GenerateTask, TokenDrawn
from hope_serve.cli.load import Load
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.config import EngineConfig, load_config
from hope_serve.engine import NativeEngine
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import load_checkpoint

PROMPT = tuple(range(100, 132))
ROUNDS = 5


async def measure(*, quick: bool) -> list[Figure]:
    """Everything; ``quick`` with fewer tokens and requests, to see that it runs."""
    with tempfile.TemporaryDirectory(prefix="hope-bench-") as folder:
        home = Path(folder)
        figures = await decode(home, 32 if quick else 128)
        figures += await returning_user(home, (256, 2048) if quick else (1000, 64_000))
        figures += await resident_memory(home, 300 if quick else 10_000)
    return figures + narrow_weights()


async def decode(home: Path, tokens: int) -> list[Figure]:
    """A single stream, engine alone and over gRPC in turns; then 16 streams."""
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    direct, streamed, many = [], [], []
    async with served(home / "decode.db") as (client, _):
        load = Load(client, vocab_size=4096, prompt_tokens=len(PROMPT), max_tokens=tokens)
        await load.together(16)
        for _ in range(ROUNDS):
            direct.append(await engine_gap(sampling))
            streamed.append((await load.together(1)).between_tokens_ms["p50"] / 1e3)
            many.append((await load.together(16)).tokens_per_second)
    alone, wire, crowd = map(statistics.median, (direct, streamed, many))
    return [
        Figure("single stream, engine alone", 1 / alone, "tokens/s"),
        Figure("single stream over gRPC", 1 / wire, "tokens/s", ">= 60"),
        Figure("a streamed token over gRPC costs more than the engine's own by", wire / alone - 1, "share", "<= 0.15"),
        Figure("16 streams over gRPC, together", crowd, "tokens/s"),
        Figure("16 streams over a single one", crowd * wire, "times", ">= 4"),
    ]


async def returning_user(home: Path, learned: tuple[int, int]) -> list[Figure]:
    """First token of a user whose memory comes from the store, after little and after much was learned."""
    async with served(home / "returning.db") as (client, _):
        load = Load(client, vocab_size=4096, prompt_tokens=len(PROMPT), max_tokens=2)
        few, much = await load.returning([await load.taught(count, piece_tokens=4096) for count in learned], rounds=25)
    first, second = few.first_token_ms["p50"], much.first_token_ms["p50"]
    return [
        Figure(f"restore to first token, {learned[0]} tokens learned", first, "ms"),
        Figure(f"restore to first token, {learned[1]} tokens learned", second, "ms"),
        Figure("the second over the first", second / first, "times", "0.8 to 1.2"),
        Figure("size of that memory", float(much.memory_bytes), "bytes", "<= 1,048,576"),
    ]


async def resident_memory(home: Path, requests: int) -> list[Figure]:
    """The server's resident memory after a tenth of the requests, and after all of them."""
    async with served(home / "requests.db") as (client, server):
        process = psutil.Process(server.pid)
        await send(client, requests // 10)
        before = process.memory_info().rss
        began = time.perf_counter()
        await send(client, requests)
        seconds = time.perf_counter() - began
        after = process.memory_info().rss
    return [
        Figure(f"resident memory after {requests // 10} requests", before / 2**20, "MiB"),
        Figure(f"resident memory after {requests} more", after / 2**20, "MiB"),
        Figure("its growth", after / before - 1, "share", "<= 0.02"),
        Figure("short requests", requests / seconds, "requests/s"),
    ]


async def engine_gap(sampling: SamplingParams) -> float:
    """Median seconds between tokens of one stream, the engine called directly in this process."""
    engine = NativeEngine(load_checkpoint(load_config().model.checkpoint), EngineConfig(), Metrics())
    await engine.start()
    times: list[float] = []
    for _ in range(2):  # the first one warms up
        times.clear()
        async for came in engine.generate(GenerateTask(prompt=PROMPT, sampling=sampling)):
            times += [time.perf_counter() for event in came if isinstance(event, TokenDrawn)]
    await engine.close()
    return statistics.median(b - a for a, b in pairwise(times))


async def send(client: AsyncHopeClient, count: int) -> None:
    """Short generations, 16 at a time, of 50 users without a memory."""
    sampling = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
    slots = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with slots:
            await client.generate(list(PROMPT[: 4 + number % 12]), user_id=f"user-{number % 50}", sampling=sampling)

    await asyncio.gather(*(one(number) for number in range(count)))


@asynccontextmanager
async def served(database: Path) -> AsyncIterator[tuple[AsyncHopeClient, ServerProcess]]:
    """A server process on the bundled checkpoint and a store of its own, and a client of it."""
    options = {"checkpoint": str(load_config().model.checkpoint), "memory": f"sqlite://{database}"}
    server = await asyncio.to_thread(lambda: ServerProcess(log=database.with_suffix(".log"), **options))
    try:
        async with AsyncHopeClient(server.target, ChannelOptions(timeout_seconds=3600)) as client:
            yield client, server
    finally:
        await asyncio.to_thread(server.stop)
