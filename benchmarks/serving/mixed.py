"""Streams and lessons together through gRPC, from other processes than the server's; and what the wire costs a step."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.request import urlopen

import torch

from benchmarks.report import Figure
from benchmarks.serving.models import config_of
from hope_serve.api import Delta, SamplingParams
from hope_serve.cli.load import percentiles
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.errors import HopeError
from hope_serve.model.checkpoint import TOKENIZER, save_checkpoint
from hope_serve.model.hope import HopeModel

STREAMS = 256
READERS = 4
"""Processes that read: one alone is the measure of its own Python, not of the server."""
LEARNING_SHARE = 0.1
LESSON_TOKENS = 512
ENDLESS = SamplingParams(temperature=0.0, max_tokens=2**20, ignore_eos=True)


def mixed(
    name: str, *, step_ms: float, device: str = "cuda", streams: int = STREAMS, seconds: float = 10.0
) -> list[Figure]:
    """Gaps between a stream's tokens alone, and while one call in ten is an Adapt; each measured for ``seconds``.

    Args:
        step_ms: what a step of so many sequences takes on the device alone, measured in the same run.
    """
    return asyncio.run(_mixed(name, step_ms, device, streams, seconds))


async def _mixed(name: str, step_ms: float, device: str, streams: int, seconds: float) -> list[Figure]:
    learners = max(1, round(streams * LEARNING_SHARE / (1 - LEARNING_SHARE)))  # of all calls under way
    where = f"{name}, {streams} streams over gRPC"
    async with _served(name, device, streams) as (client, server):
        with _Readers(server.target, streams) as readers:
            await readers.all_draw()
            gaps = await readers.gaps(seconds)
            alone, tokens = percentiles(gaps), len(gaps)
            step_before = await asyncio.to_thread(_step, server)
            await asyncio.sleep(seconds / 4)
            step = _mean(step_before, await asyncio.to_thread(_step, server))
            pupils = [asyncio.create_task(_learn(client, number)) for number in range(learners)]
            await asyncio.sleep(1.0)
            beside = percentiles(await readers.gaps(seconds))
            learned = sum([await _ended(task) for task in pupils])
    rate = tokens / seconds
    share = 1 - step_ms / 1e3 * rate / streams
    return [
        Figure(f"{where}: tokens", rate, "tokens/s"),
        Figure(f"{where}: between tokens, p50", alone["p50"], "ms"),
        Figure(f"{where}: between tokens, p99", alone["p99"], "ms"),
        Figure(f"{where}: the engine's step", step * 1e3, "ms"),
        Figure(f"{where}: a step of the device alone", step_ms, "ms"),
        Figure(f"{where}: share of the time that is gRPC's and Python's", share, "", "<= 0.1"),
        Figure(f"{where} beside {learners} who learn: between tokens, p50", beside["p50"], "ms"),
        Figure(f"{where} beside {learners} who learn: between tokens, p99", beside["p99"], "ms"),
        Figure(f"{where}: p99 beside over alone", beside["p99"] / alone["p99"], "times", "<= 2"),
        Figure(f"{where}: tokens learned beside", learned / (seconds + 1), "tokens/s"),
    ]


class _Readers:
    """Processes that read endless streams and note the seconds between tokens."""

    def __init__(self, target: str, streams: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for at in range(READERS):
            here, there = context.Pipe()
            numbers = list(range(at, streams, READERS))
            process = context.Process(target=_reader, args=(target, numbers, there), daemon=True)
            process.start()
            self._pipes.append(here)
            self._processes.append(process)
        self._streams = streams

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    async def gaps(self, seconds: float) -> list[float]:
        """Everybody's, of so many seconds."""
        await asyncio.to_thread(self._taken)
        await asyncio.sleep(seconds)
        return await asyncio.to_thread(self._taken)

    async def all_draw(self) -> None:
        """First steps compile and load; wait until tokens come evenly."""
        for _ in range(600):
            if len(await self.gaps(0.2)) > 4 * self._streams:
                return
        raise RuntimeError("the streams did not begin to draw within two minutes")

    def _taken(self) -> list[float]:
        for pipe in self._pipes:
            pipe.send(None)
        return [gap for pipe in self._pipes for gap in pipe.recv()]


def _reader(target: str, numbers: list[int], pipe: Connection) -> None:
    asyncio.run(_read(target, numbers, pipe))


async def _read(target: str, numbers: list[int], pipe: Connection) -> None:
    """Read streams, and hand over their gaps whenever somebody asks."""
    gaps: list[float] = []
    async with AsyncHopeClient(target, ChannelOptions(timeout_seconds=3600, retries=False)) as client:
        tasks = [asyncio.create_task(_stream(client, number, gaps)) for number in numbers]
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(list(gaps))
            gaps.clear()
            for task in tasks:
                if task.done():
                    task.result()


async def _stream(client: AsyncHopeClient, number: int, gaps: list[float]) -> None:
    """Read one endless stream, noting the seconds between its tokens; tokens that come together have one gap each."""
    tokens = [16 + number % 200, 20, 30, 40]
    last = 0.0
    events = client.stream(tokens, user_id=f"reader-{number}", sampling=ENDLESS)
    async with contextlib.aclosing(events):  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Delta) and event.token_ids:
                now = time.perf_counter()
                if last:
                    gaps.extend([(now - last) / len(event.token_ids)] * len(event.token_ids))
                last = now


async def _learn(client: AsyncHopeClient, number: int) -> int:
    """Teach one user again and again; the tokens learned when it is cancelled."""
    chance, learned = random.Random(number), 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            try:
                await client.adapt(f"pupil-{number}", [chance.randrange(16, 250) for _ in range(LESSON_TOKENS)])
                learned += LESSON_TOKENS
            except HopeError as error:
                if error.reason not in ("UPDATE_REFUSED", "QUEUE_FULL"):
                    raise
                await asyncio.sleep(0.1)
    return learned


async def _ended(task: asyncio.Task[int]) -> int:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return 0


def _step(server: ServerProcess) -> tuple[float, float]:
    """Seconds and number of the engine's steps so far, from the server's metrics."""
    with urlopen(server.metrics_url, timeout=10) as page:
        lines = page.read().decode().splitlines()
    found = {
        key: float(value)
        for key, _, value in (line.rpartition(" ") for line in lines)
        if key.startswith("hope_engine_step")
    }
    return found["hope_engine_step_seconds_sum"], found["hope_engine_step_seconds_count"]


def _mean(before: tuple[float, float], after: tuple[float, float]) -> float:
    return (after[0] - before[0]) / max(1.0, after[1] - before[1])


@asynccontextmanager
async def _served(name: str, device: str, streams: int) -> AsyncIterator[tuple[AsyncHopeClient, ServerProcess]]:
    """A server process on random weights, with a slot for every stream."""
    with tempfile.TemporaryDirectory(prefix="hope-bench-") as folder:
        home = Path(folder)
        torch.manual_seed(0)
        with torch.device(device):
            model = HopeModel(config_of(name))
        tokenizer = (BUNDLED_CHECKPOINT / TOKENIZER).read_bytes()
        save_checkpoint(home / "model", model, tokenizer=tokenizer, card=f"# {name}, random weights\n")
        del model
        config = home / "hope.toml"
        config.write_text(f"[engine]\nmax_slots = {streams}\n[server]\nmax_concurrent_calls = {4 * streams}\n")
        options = {"checkpoint": str(home / "model"), "memory": f"sqlite://{home}/memory.db", "device": device}
        server = await asyncio.to_thread(lambda: ServerProcess(config=str(config), log=home / "log", **options))
        try:
            async with AsyncHopeClient(server.target, ChannelOptions(timeout_seconds=3600, retries=False)) as client:
                yield client, server
        finally:
            await asyncio.to_thread(server.stop)
