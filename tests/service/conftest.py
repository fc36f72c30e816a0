"""A real engine on a tiny random checkpoint and a real SQLite store."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from support.running_service import running_service
from support.tiny_model import write_tiny_checkpoint

from hope_serve.memory.url import make_store
from hope_serve.model.checkpoint import load_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return load_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny"))


@pytest.fixture
def open_engine(checkpoint, tmp_path):
    """``async with open_engine(**engine options) as engine``; all of one test share one store."""

    @asynccontextmanager
    async def opened(*, url: str = f"sqlite://{tmp_path}/memory.db", model=checkpoint, **options):
        store = make_store(url)
        await store.open()
        try:
            async with running_service(model, store, **options) as service:
                yield service
        finally:
            await store.close()

    return opened


@pytest.fixture
async def engine(open_engine):
    async with open_engine() as running:
        yield running
