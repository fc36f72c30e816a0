"""Many users on few slots: what it costs that every request is somebody else's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.report import Figure
from benchmarks.serving.models import config_of
from hope_serve.api import SamplingParams
from hope_serve.api.engine import GenerateTask, TokenDrawn
from hope_serve.config import EngineConfig
from hope_serve.engine import NativeEngine, native_codec
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import Checkpoint
from hope_serve.model.hope import HopeModel

SLOTS = 64
TOKENS, SHORT = 32, 4
REQUESTS = 1024
RATIOS = (1, 2, 4, 16)
ROWS = 1000
"""Memories that differ as bytes; more users share them, each as an object of its own: slots look at nothing else."""


def churn(name: str, *, device: str = "cuda", quick: bool = False) -> list[Figure]:
    """Ten users who are always resident, others who take turns, users by Zipf's law, and ten thousand once each."""
    return asyncio.run(_churn(name, device, REQUESTS // 16 if quick else REQUESTS))


async def _churn(name: str, device: str, requests: int) -> list[Figure]:
    async with _engine(name, device) as (engine, row):
        rows = [row.clone() for _ in range(min(ROWS, requests))]
        rows = [r.pin_memory() for r in rows] if device == "cuda" else rows
        few, many = _users(rows, 10), _users(rows, len(rows))
        hot = [few[i % len(few)] for i in range(requests)]
        cold = random.Random(1).sample([many[i % len(many)] for i in range(requests)], requests)
        await _rate(engine, hot, TOKENS)  # what is made on first use is made now
        figures = await _others_than_hot(engine, hot, cold, f"{name}, {SLOTS} slots")
        figures += await _ratios(engine, rows, requests, f"{name}, {SLOTS} slots")
        crowd = _users(rows, 10 * requests)
        rate, wait = await _rate(engine, crowd, SHORT)
        label = f"{name}, {SLOTS} slots, {len(crowd)} users once each, {SHORT} tokens"
        return [*figures, Figure(label, rate / SHORT, "requests/s"), Figure(f"{label}: first token p99", wait, "ms")]


async def _others_than_hot(engine: NativeEngine, hot: list[Tensor], cold: list[Tensor], where: str) -> list[Figure]:
    """Users in turn against resident ones, with and without waiting for those whose memory is on its way."""
    figures, rates = [], {}
    arrivals = engine._loop._scheduler.arrivals
    default = arrivals.hold_plans
    for hold in (default, 0):
        arrivals.hold_plans = hold
        for label, order in (("10 users", hot), ("each request another user", cold)):
            rates[label], wait = await _rate(engine, order, TOKENS)
            named = f"{where}, {label}, prompts held for {hold} plans"
            figures += [Figure(named, rates[label], "tokens/s"), Figure(f"{named}: first token p99", wait, "ms")]
        goal = ">= 0.9" if hold == default else ""
        share = rates["each request another user"] / rates["10 users"]
        figures.append(Figure(f"{where}, held for {hold} plans: another user each over 10 users", share, "", goal))
    arrivals.hold_plans = default
    return figures


async def _ratios(engine: NativeEngine, rows: list[Tensor], requests: int, where: str) -> list[Figure]:
    """Users to slots, requests by Zipf's law."""
    figures, first = [], 0.0
    for ratio in RATIOS:
        users = _users(rows, ratio * SLOTS)
        weights = [1 / (rank + 1) for rank in range(len(users))]
        rate, wait = await _rate(engine, random.Random(2).choices(users, weights, k=requests), TOKENS)
        first = first or rate
        figures += [
            Figure(f"{where}, {ratio} users a slot, Zipf", rate, "tokens/s"),
            Figure(f"{where}, {ratio} users a slot, Zipf: first token p99", wait, "ms"),
        ]
        if ratio > 1:
            goal = ">= 0.8" if ratio == 4 else ""
            figures.append(Figure(f"{where}, {ratio} users a slot over 1", rate / first, "", goal))
    return figures


@asynccontextmanager
async def _engine(name: str, device: str) -> AsyncIterator[tuple[NativeEngine, Tensor]]:
    torch.manual_seed(0)
    with torch.device(device):
        model = HopeModel(config_of(name))
    model = model.cpu()
    checkpoint = Checkpoint(config=model.config, model=model, tokenizer_path=Path(), fingerprint="benchmark")
    config = EngineConfig(max_slots=SLOTS)
    engine = NativeEngine(checkpoint, config, Metrics(), device=device)
    await engine.start()
    try:
        yield engine, native_codec(checkpoint, config, device=device).blank().reads()
    finally:
        await engine.close()


def _users(rows: list[Tensor], count: int) -> list[Tensor]:
    return [rows[i % len(rows)][:] for i in range(count)]


async def _rate(engine: NativeEngine, order: list[Tensor], tokens: int) -> tuple[float, float]:
    """Tokens a second, and the p99 of milliseconds from admission to the first token."""
    gate, waits = asyncio.Semaphore(SLOTS + SLOTS // 4), []
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)

    async def one(number: int, memory: Tensor) -> None:
        async with gate:
            began, count = time.perf_counter(), 0
            task = GenerateTask(prompt=(1 + number % 250, 2, 3, 4), sampling=sampling, memory=memory)
            async for came in engine.generate(task):
                if not count:
                    waits.append(time.perf_counter() - began)
                count += sum(isinstance(event, TokenDrawn) for event in came)
            if count != tokens:
                raise RuntimeError(f"{count} tokens came instead of {tokens}")

    began = time.perf_counter()
    await asyncio.gather(*(one(i, memory) for i, memory in enumerate(order)))
    seconds = time.perf_counter() - began
    return len(order) * tokens / seconds, sorted(waits)[int(0.99 * len(waits))] * 1e3
