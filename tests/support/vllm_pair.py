"""The native engine and vLLM side by side, over one checkpoint and one store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hope_serve.config import EngineConfig, VllmConfig
from hope_serve.engine import NativeEngine, native_codec
from hope_serve.memory.url import make_store
from hope_serve.metrics import Metrics
from hope_serve.model.load import load_model
from hope_serve.service import Service
from hope_serve.vllm_engine import VllmEngine
from hope_serve.vllm_engine.model import vllm_model

OPTIONS = {
    "max_slots": 4,
    "max_batch_tokens": 32,
    "max_prompt_tokens": 2048,
    "max_context_tokens": 400,
    "poison_slots": True,
}


@dataclass
class Pair:
    """Two services on one store; ``metrics`` are those of vLLM's."""

    native: Service
    vllm: Service
    loaded: Any
    engine: VllmEngine
    metrics: Metrics = field(default_factory=Metrics)


@asynccontextmanager
async def pair(
    folder: Path, store: Path, *, part: Path | None = None, cache_bytes: int = 2**27, cards: int = 1, **options
):
    """``options`` are those of the engines; vLLM divides every layer among ``cards``."""
    loaded, config, metrics = load_model(folder, part), EngineConfig(**(OPTIONS | options)), Metrics()
    native = NativeEngine(loaded, config, Metrics())
    told = vllm_model(loaded, folder, config, device="cpu", part=part)
    vllm = VllmConfig(cache_bytes=cache_bytes, tensor_parallel_size=cards)
    engine = VllmEngine(told, native.info, config, vllm, metrics)
    opened = make_store(f"sqlite://{store}")
    await opened.open()
    codec = native_codec(loaded, config, device="cpu")
    services = [
        Service(one, codec, loaded.tokenizer(), opened, config, measured)
        for one, measured in ((native, Metrics()), (engine, metrics))
    ]
    try:
        for service in services:
            await service.start()
        yield Pair(native=services[0], vllm=services[1], loaded=loaded, engine=engine, metrics=metrics)
    finally:
        for service in reversed(services):
            await service.close()
        await opened.close()


def text(seed: int, count: int) -> list[int]:
    """Reproducible ids that every test vocabulary has."""
    return torch.randint(6, 290, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
