"""A service on the native engine and a given store, as the server composes them."""

from __future__ import annotations

from contextlib import asynccontextmanager

from hope_serve.config import EngineConfig
from hope_serve.engine import NativeEngine, native_codec
from hope_serve.metrics import Metrics
from hope_serve.service import Service


@asynccontextmanager
async def running_service(checkpoint, store, *, metrics=None, device="cpu", **options):
    """``store`` is open; ``options`` are those of the engine. Freed slots are poisoned."""
    config, metrics = EngineConfig(**({"poison_slots": True} | options)), metrics or Metrics()
    service = Service(
        NativeEngine(checkpoint, config, metrics, device=device),
        native_codec(checkpoint, config, device=device),
        checkpoint.tokenizer(),
        store,
        config,
        metrics,
    )
    try:
        await service.start()
        yield service
    finally:
        await service.close()
