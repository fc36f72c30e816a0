"""A server whose engine has failed tells everybody, and ends by itself: nothing is left waiting for it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import server_failing_engine
from support.server_running import connect
from support.waiting import until

from hope_serve.api import SamplingParams
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import HopeError, Unavailable
from hope_serve.server.serve import FAILURE_EXIT_CODE
from hope_serve.tokenizer import Tokenizer

AT_ONCE = ChannelOptions(retries=False, timeout_seconds=60)
ENDLESS = SamplingParams(max_tokens=2**20, ignore_eos=True)
STUCK_SECONDS = 3.0
GREEDY = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)


@pytest.fixture
def process(checkpoint_folder, tmp_path):
    """A server process and its address."""
    options = {"listen": "127.0.0.1:0", "metrics-listen": "127.0.0.1:0", "memory": f"sqlite://{tmp_path}/memory.db"}
    options |= {"checkpoint": str(checkpoint_folder), "device": "cpu", "set": f"engine.stuck_seconds={STUCK_SECONDS}"}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    file = Path(server_failing_engine.__file__)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "log").open("w") as errors:
        started = subprocess.Popen(
            [sys.executable, str(file), "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environ,
        )
    try:
        yield started, re.search(r"listens on (\S+);", started.stdout.readline())[1]
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


async def test_a_server_whose_engine_failed_ends_its_calls_its_health_and_itself_within_two_seconds(process, tmp_path):
    server, target = process
    async with AsyncHopeClient(target, AT_ONCE) as client, AsyncHopeClient(target, AT_ONCE) as probe:
        streams = [client.stream("tea", sampling=ENDLESS) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        assert await probe.is_serving("")
        server.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        for stream in streams:
            with pytest.raises(Unavailable):
                _ = [event async for event in stream]
        assert time.monotonic() - began < 1
        await until(lambda: _dead(probe), 5)
        assert time.monotonic() - began < 2
        assert await asyncio.to_thread(server.wait, 10) == FAILURE_EXIT_CODE
        assert time.monotonic() - began < 2.5  # the last second is another's: a busy machine's
    assert "the engine's thread ended" in (tmp_path / "log").read_text()


async def test_a_server_whose_engine_hangs_ends_them_as_soon_as_it_is_taken_for_stuck(process, tmp_path):
    server, target = process
    async with AsyncHopeClient(target, AT_ONCE) as client, AsyncHopeClient(target, AT_ONCE) as probe:
        streams = [client.stream("tea", sampling=ENDLESS) for _ in range(3)]
        for stream in streams:
            await anext(stream)
        server.send_signal(signal.SIGUSR2)
        began = time.monotonic()
        for stream in streams:
            with pytest.raises(Unavailable):
                _ = [event async for event in stream]
        assert time.monotonic() - began > STUCK_SECONDS - 1  # a slow step is waited for
        assert time.monotonic() - began < STUCK_SECONDS + 1
        await until(lambda: _dead(probe), 5)
        assert time.monotonic() - began < STUCK_SECONDS + 2
        assert await asyncio.to_thread(server.wait, 10) == FAILURE_EXIT_CODE
    assert "it is taken for lost" in (tmp_path / "log").read_text()


async def _dead(client) -> bool:
    try:
        return not await client.is_serving("")
    except Unavailable:
        return True


async def test_a_fault_of_ours_is_internal_with_a_correlation_id_that_the_log_explains(
    server, client, monkeypatch, caplog
):
    whole, cursed = Tokenizer.token_bytes, 77
    before = await client.generate("The gulls", sampling=GREEDY)

    def broken(self, token):
        if token == cursed:
            raise KeyError("secret text of somebody")
        return whole(self, token)

    monkeypatch.setattr(Tokenizer, "token_bytes", broken)
    forced = SamplingParams(temperature=0.0, max_tokens=6, logit_bias=((cursed, 100.0),))
    for call in (client.generate("tea", sampling=forced), _last(client.stream("tea", sampling=forced))):
        caplog.clear()
        with pytest.raises(HopeError) as failed:
            await call
        assert failed.value.reason == "INTERNAL"
        assert "secret" not in str(failed.value)
        assert failed.value.details["correlation_id"] in caplog.text
        assert "KeyError: 'secret text of somebody'" in caplog.text
        assert "in broken" in caplog.text
    assert await client.is_serving()
    assert (await client.generate("The gulls", sampling=GREEDY)).choices[0].text == before.choices[0].text


async def _last(events):
    return [event async for event in events][-1]


async def test_an_engine_that_failed_is_neither_alive_nor_ready_though_its_process_lives(server, monkeypatch):
    monkeypatch.setattr(type(server.service), "failure", RuntimeError("the device is lost"))
    await server.server.refresh_health()
    async with connect(server) as client:
        assert not await client.is_serving("")
        assert not await client.is_serving()
        with pytest.raises(Unavailable) as refused:
            await client.generate("tea", sampling=GREEDY)
        assert refused.value.reason == "ENGINE_STOPPED"
