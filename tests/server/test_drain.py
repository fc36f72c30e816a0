"""SIGTERM on a real server process: nothing that was begun is lost, and the exit code is 0."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from support.server_running import connect

from hope_serve.api import Delta, Ended, Learn, Message, SamplingParams
from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import Unavailable
from hope_serve.server.serve import QUICK_EXIT_CODE

AT_ONCE = ChannelOptions(retries=False, timeout_seconds=60)
LONG = SamplingParams(max_tokens=150, ignore_eos=True)


@pytest.fixture
def start(checkpoint_folder, tmp_path):
    def started() -> ServerProcess:
        return ServerProcess(
            checkpoint=str(checkpoint_folder),
            memory=f"sqlite://{tmp_path}/memory.db",
            log=tmp_path / "log",
            device="cpu",
        )

    return started


async def test_a_terminated_server_finishes_what_it_began_and_learns_it(start, open_server):
    with start() as server:
        async with AsyncHopeClient(server.target, AT_ONCE) as client:
            turn = [Message(role="user", text="My dog is called Biscuit. " * 10)]
            stream = client.stream(turn, user_id="ann", sampling=LONG, learn=Learn.USER_TURNS, request_id="last")
            await anext(stream)
            os.kill(server.pid, signal.SIGTERM)
            await _refused(client)
            assert await client.is_serving("")
            events = [event async for event in stream]
        assert sum(len(event.token_ids) for event in events if isinstance(event, Delta)) == LONG.max_tokens
        assert isinstance(events[-1], Ended)
        assert await asyncio.to_thread(server.wait) == 0
    async with open_server() as restarted, connect(restarted) as client:
        assert [version.request_id for version in await client.list_versions("ann")] == ["last.learn"]


async def test_a_drained_server_refuses_until_nobody_calls_any_more(start):
    with start() as server:
        async with AsyncHopeClient(server.target, AT_ONCE) as client:
            await client.get_model()
            os.kill(server.pid, signal.SIGTERM)
            await _refused(client)
            for _ in range(12):  # for longer than it would stay if nobody called
                await asyncio.sleep(0.25)
                await _refused(client)
        assert await asyncio.to_thread(server.wait) == 0


async def test_a_second_signal_ends_a_server_at_once(start):
    with start() as server:
        async with AsyncHopeClient(server.target, AT_ONCE) as client:
            endless = SamplingParams(max_tokens=2**20, ignore_eos=True)
            stream = client.stream("tea", sampling=endless)
            await anext(stream)
            os.kill(server.pid, signal.SIGTERM)
            await _refused(client)
            assert await asyncio.to_thread(server.stop) == QUICK_EXIT_CODE


async def _refused(client) -> None:
    """Wait until new calls are refused."""
    for _ in range(500):
        try:
            await client.get_model()
        except Unavailable as error:
            assert error.reason == "DRAINING"
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the server went on taking calls")
