"""One thread owns the device: the event loop and every worker see tensors of the host alone."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.device_guard import guarded_threads
from support.engine_calls import ANN, BOB, adapt, generate, generate_all, ids
from support.running_service import running_service
from support.tiny_model import write_tiny_checkpoint

from hope_serve.api import AdaptMode, MemoryChoice, ScoreRequest
from hope_serve.engine.runner import Group
from hope_serve.memory.url import make_store
from hope_serve.model.checkpoint import load_checkpoint


@pytest.fixture
async def store(tmp_path):
    store = make_store(f"sqlite://{tmp_path}/memory.db")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def checkpoint(tmp_path):
    return load_checkpoint(write_tiny_checkpoint(tmp_path / "tiny"))


async def everything(service):
    """A call of every kind that reaches the device, side by side and one after the other."""
    await adapt(service, ids(9, 60))
    await asyncio.gather(
        generate(service, ids(1, 30), owner=ANN, session_id="s", logprobs=5),
        generate(service, ids(2, 5), owner=BOB, temperature=1.0, seed=3),
        generate_all(service, ids(3, 9), n=3, temperature=1.0, repetition_penalty=1.2),
        service.score(ScoreRequest(prompt=tuple(ids(4, 9)), continuations=((7, 8), (9,)), owner=ANN)),
        adapt(service, ids(5, 40), owner=BOB, request_id="bob"),
        adapt(service, ids(6, 40), owner=ANN, mode=AdaptMode.DRY_RUN, request_id="dry"),
    )
    await generate(service, [7], owner=ANN, session_id="s")
    leaving = asyncio.create_task(generate(service, ids(7, 9), max_tokens=2**20))
    await asyncio.sleep(0.05)
    leaving.cancel()
    await service.memories.warm(ANN, MemoryChoice())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
async def test_no_thread_but_the_engines_own_touches_what_lives_on_the_device(checkpoint, store, monkeypatch, device):
    with guarded_threads(monkeypatch) as (found, devices):
        async with running_service(checkpoint, store, device=device, max_slots=4) as service:
            await everything(service)
    assert len(devices) == 1
    assert found == []


async def test_whoever_touches_it_from_another_thread_is_noticed(checkpoint, store, monkeypatch):
    with guarded_threads(monkeypatch) as (found, devices):
        async with running_service(checkpoint, store):
            (device,) = devices
            device.pools.last_token[1].item()
            await asyncio.to_thread(device.pools.state.rows[1].clone)
            for touch in (
                lambda: device.pools.save(1),
                lambda: device.pools.bring(1, None),
                lambda: device.runner.run(Group()),
                lambda: device.teaching.step([]),
            ):
                with pytest.raises(AssertionError, match="does not own the device"):
                    touch()
    main, worker = sorted({entry.partition(":")[0] for entry in found})
    assert main == threading.main_thread().name and worker.startswith("worker_")
