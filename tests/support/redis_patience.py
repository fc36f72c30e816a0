"""How long a call may take while a store is in trouble, and how soon it must work again."""

import asyncio
import contextlib
import time

import pytest

from hope_serve.errors import Unavailable
from hope_serve.memory.url import make_store

AT_ONCE = 2.0
"""Seconds within which a call must end while the store is down."""
RECOVERY = 5.0
"""Seconds within which a store that is back must be used again."""


@contextlib.asynccontextmanager
async def opened(port, query=""):
    store = make_store(f"redis://127.0.0.1:{port}{query}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def ends_at_once(call, error=Unavailable):
    began = time.monotonic()
    with pytest.raises(error) as caught:
        await call
    assert time.monotonic() - began < AT_ONCE
    return caught.value


async def comes_back(call):
    """Repeat a call until it works; fails the test after the time for recovery."""
    began = time.monotonic()
    while True:
        try:
            return await call()
        except Unavailable:
            assert time.monotonic() - began < RECOVERY
            await asyncio.sleep(0.05)
