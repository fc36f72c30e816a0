"""An Envoy in front of pods that do as they are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from support.envoy import Envoy
from support.told_pod import ToldPod


@pytest.fixture
async def fleet(tmp_path):
    """``(envoy, pods)``: three pods behind it, all healthy."""
    async with AsyncExitStack() as closing:
        pods = [await closing.enter_async_context(ToldPod()) for _ in range(3)]
        envoy = Envoy(tmp_path)
        closing.callback(envoy.close)
        await asyncio.to_thread(envoy.start, [pod.target for pod in pods])
        await envoy.until_healthy(3)
        yield envoy, pods
