"""Memories share slots, steps and RAM; nobody meets another's."""

from __future__ import annotations

import asyncio

import pytest
from support.engine_calls import ANN, BOB, adapt, generate, ids

from hope_serve.api import MemoryChoice, Owner
from hope_serve.metrics import Metrics


@pytest.mark.parametrize("deterministic", [True, False])
async def test_a_plain_generation_in_a_used_slot_beside_memories_is_plain(open_engine, deterministic):
    """Every slot has held a memory, and one is read in the same steps: the answer is the plain model's to the bit."""
    plain = lambda engine: generate(engine, ids(3, 21), max_tokens=12, logprobs=5)
    ann = lambda engine: generate(engine, ids(5, 21), owner=ANN, max_tokens=12, logprobs=5)
    async with open_engine(deterministic=deterministic, max_slots=3) as engine:
        alone = await plain(engine)
        await adapt(engine, ids(5, 120), owner=ANN, passes=4)
        with_memory = await ann(engine)
        assert with_memory.logprobs != (await generate(engine, ids(5, 21), max_tokens=12, logprobs=5)).logprobs
        for _ in range(3):
            await asyncio.gather(ann(engine), ann(engine), ann(engine))
            first, second, beside = await asyncio.gather(plain(engine), plain(engine), ann(engine))
            assert first.tokens == second.tokens == alone.tokens
            assert beside.tokens == with_memory.tokens
            for reply in (first, second):
                assert _numbers(reply) == (
                    _numbers(alone) if deterministic else pytest.approx(_numbers(alone), abs=1e-5)
                )


def _numbers(reply) -> list[float]:
    return [entry.logprob for entry in reply.logprobs] + [p for entry in reply.logprobs for _, p in entry.top]


async def test_the_memory_least_recently_used_leaves_first(open_engine):
    people = [Owner(tenant="default", user=name) for name in ("ann", "bob", "cid")]
    async with open_engine() as engine:
        room = 2 * engine.memories.codec.warm_bytes
    metrics = Metrics()
    async with open_engine(max_warm_bytes=room, metrics=metrics) as engine:
        warm = lambda owner: engine.memories.warm(owner, MemoryChoice())
        ann, bob, cid = people
        for owner in people:
            await adapt(engine, ids(1, 20), owner=owner)
        assert metrics.registry.get_sample_value("hope_memory_evictions_total", {"reason": "capacity"}) == 1
        assert [(await warm(owner)).was_warm for owner in (cid, bob)] == [True, True]
        assert not (await warm(ann)).was_warm  # and cid, used longer ago than bob, leaves for it
        assert [(await warm(owner)).was_warm for owner in (bob, ann)] == [True, True]
        assert not (await warm(cid)).was_warm


async def test_a_commit_that_meets_a_newer_version_is_counted(open_engine, monkeypatch):
    """Another pod writes while this one learns: it learns again, on the newer version, and the metric says so."""
    metrics = Metrics()
    conflicts = lambda: metrics.registry.get_sample_value("hope_commit_conflicts_total")
    async with open_engine(metrics=metrics) as slow, open_engine() as quick:
        commit, left = slow.memories.store.commit, [2]

        async def commit_late(owner, step):
            if left[0]:
                left[0] -= 1
                await adapt(quick, ids(left[0], 30), owner=BOB, request_id=f"quick-{left[0]}")
            return await commit(owner, step)

        monkeypatch.setattr(slow.memories.store, "commit", commit_late)
        assert conflicts() == 0
        result = await adapt(slow, ids(7, 30), owner=BOB, request_id="slow")
        assert (result.base_version, result.version) == (2, 3)
        assert conflicts() == 2
        await adapt(slow, ids(8, 30), owner=BOB, request_id="alone")
        assert conflicts() == 2
