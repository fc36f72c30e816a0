"""hope_saturation: what the fullest part says, and that a running server reports it."""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.server_running import connect

from hope_serve.api import Delta, SamplingParams
from hope_serve.config import EngineConfig
from hope_serve.metrics import Metrics
from hope_serve.server.saturation import saturation

LIMITS = EngineConfig(max_slots=4, max_queue_tokens=100)
ENDLESS = SamplingParams(max_tokens=100_000, ignore_eos=True)


@pytest.mark.parametrize(
    ("queue", "slots", "lessons", "full"),
    [(0, 0, 0.0, 0.0), (80, 1, 0.1, 0.8), (10, 3, 0.1, 0.75), (10, 1, 0.9, 0.9), (400, 0, 0.0, 1.0), (0, 4, 0.0, 1.0)],
)
def test_it_is_the_fullest_part_and_never_more_than_full(queue, slots, lessons, full):
    metrics = Metrics()
    metrics.queue_tokens().set(queue)
    metrics.memory_slots_used().set(slots)
    assert saturation(metrics, LIMITS, lessons=lessons) == pytest.approx(full)


async def test_a_server_says_how_full_it_is(open_server):
    async with open_server(max_slots=4) as server, connect(server) as client:
        assert await _saturation(server) == 0.0
        streams = [client.stream("tea", sampling=ENDLESS) for _ in range(3)]
        for stream in streams:
            while not isinstance(await anext(stream), Delta):
                pass
        for _ in range(500):  # the gauges follow a step after its tokens
            if await _saturation(server) == 0.75:
                break
            await asyncio.sleep(0.02)
        assert await _saturation(server) == 0.75
        for stream in streams:
            await stream.aclose()


async def _saturation(server) -> float:
    text = await asyncio.to_thread(_scrape, server.metrics_port)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["hope_saturation"].samples[0].value


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        return reply.read().decode()
