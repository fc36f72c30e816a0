"""Looks every few seconds whether the store keeps what it promised; one that does not acknowledges nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hope_serve.errors import HopeError
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.metrics import Metrics

log = logging.getLogger(__name__)


@asynccontextmanager
async def promises_watched(store: SealedStore, metrics: Metrics, seconds: float) -> AsyncIterator[None]:
    """Look again and again while inside."""
    metrics.store_promise_kept().set(1)
    task = asyncio.get_running_loop().create_task(_watch(store, metrics, seconds), name="promises")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(store: SealedStore, metrics: Metrics, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            metrics.store_promise_kept().set(await store.look_again())
        except HopeError as error:
            log.debug("the store does not answer a look at its settings: %s", error)  # its calls say so themselves
