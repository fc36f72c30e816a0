"""A real engine on a tiny random checkpoint and a real SQLite store."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from support.tiny_model import write_tiny_checkpoint

from hope_serve.config import EngineConfig
from hope_serve.engine import Engine
from hope_serve.memory.url import make_store
from hope_serve.metrics import Metrics
from hope_serve.model.checkpoint import load_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return load_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.fixture
def open_engine(checkpoint, tmp_path):
    """``async with open_engine(**engine options) as engine``; all of one test share one store."""

    @asynccontextmanager
    async def opened(*, url: str = f"sqlite://{tmp_path}/memory.db", metrics=None, model=checkpoint, **options):
        store = make_store(url)
        await store.open()
        engine = Engine(model, store, EngineConfig(**options), metrics or Metrics())
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()
            await store.close()

    return opened


@pytest.fixture
async def engine(open_engine):
    async with open_engine() as running:
        yield running
