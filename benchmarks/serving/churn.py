"""Many users on few slots: what it costs that every request is somebody else's."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import Figure
from benchmarks.serving.models import config_of
from hope_serve.api import SamplingParams
from hope_serve.api.engine import ChoiceEnded, GenerateTask, TokenDrawn
from hope_serve.config import EngineConfig
from hope_serve.engine import NativeEngine, native_codec
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import Checkpoint
from hope_serve.model.hope import HopeModel

SLOTS = 64
TOKENS = 32
REQUESTS = 1024


def churn(name: str, *, num_users: int) -> list[Figure]:
    """Tokens a second of ten users who are always resident, and of ``num_users`` who take turns."""
    return asyncio.run(_churn(name, num_users))


async def _churn(name: str, num_users: int) -> list[Figure]:
    torch.manual_seed(0)
    model = HopeModel(config_of(name))
    checkpoint = Checkpoint(config=model.config, model=model, tokenizer_path=Path(), fingerprint="benchmark")
    config = EngineConfig(max_slots=SLOTS)
    engine = NativeEngine(checkpoint, config, Metrics(), device="cuda")
    row = native_codec(checkpoint, config, device="cuda").blank().reads()
    memories = [row.clone().pin_memory() for _ in range(num_users)]
    await engine.start()
    try:
        figures = []
        for label, crowd in (
            ("warm-up", 10),
            ("10 users", 10),
            (f"{num_users} users, each request another", num_users),
        ):
            order = [memories[i % crowd] for i in range(REQUESTS)]
            if crowd > 10:
                random.Random(1).shuffle(order)
            rate, waits = await _rate(engine, order)
            if label != "warm-up":
                figures.append(Figure(f"{name}, {SLOTS} slots, {label}", rate, "tokens/s"))
                figures.append(Figure(f"{name}, {SLOTS} slots, {label}: first token p99", waits, "ms"))
        return [
            *figures,
            Figure(f"{name}, the second over the first", figures[2].value / figures[0].value, "", ">= 0.9"),
        ]
    finally:
        await engine.close()


async def _rate(engine: NativeEngine, order: list[Tensor]) -> tuple[float, float]:
    """Tokens a second, and the p99 of milliseconds from admission to the first token."""
    gate, waits = asyncio.Semaphore(SLOTS + SLOTS // 4), []
    sampling = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)

    async def one(number: int, memory: Tensor) -> None:
        async with gate:
            began, first = time.perf_counter(), 0.0
            task = GenerateTask(prompt=(1 + number % 500, 2, 3, 4), sampling=sampling, memory=memory)
            async for event in engine.generate(task):
                if isinstance(event, TokenDrawn) and not first:
                    first = time.perf_counter() - began
                assert not isinstance(event, ChoiceEnded) or event.num_drawn == TOKENS
            waits.append(first)

    began = time.perf_counter()
    await asyncio.gather(*(one(i, memory) for i, memory in enumerate(order)))
    seconds = time.perf_counter() - began
    return len(order) * TOKENS / seconds, sorted(waits)[int(0.99 * len(waits))] * 1e3
