import asyncio
import time

import pytest
from support.store_sqlite import SqliteStorage

from hope_serve.memory.keys import new_key, single_key


@pytest.fixture(params=["sqlite", "sqlite-encrypted"])
async def storage(request, tmp_path):
    """A place to keep memories: ``await storage.store()`` opens a store on it, as often as pods are needed."""
    keys = single_key(new_key(), key_id="k1", encrypts=True) if request.param.endswith("encrypted") else None
    kept = SqliteStorage(tmp_path, keys)
    yield kept
    await kept.close()


@pytest.fixture
async def store(storage):
    return await storage.store()


@pytest.fixture
async def responsive_loop():
    """Fails the test when something held the event loop for longer than 100 ms."""
    gaps = []
    done = asyncio.Event()

    async def tick():
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticking = asyncio.create_task(tick())
    yield gaps
    done.set()
    await ticking
    assert max(gaps) < 0.1, f"the event loop stood still for {max(gaps):.3f} s"
