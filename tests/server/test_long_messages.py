"""Messages as long as they may be, and worse than usual: nobody else waits for them."""

from __future__ import annotations

import asyncio
import random
import string
import time

import pytest
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.client import Message
from hope_serve.errors import Exhausted, HopeError

PAUSE = 0.35
"""Seconds for which a call may hold up others, on a machine that is busy with other tests; it was 1.4 and more."""


def noise(count: int) -> str:
    """Text that is a token a character."""
    return "".join(random.Random(count).choices(string.printable, k=count))


CALLS = {
    "Detokenize": lambda client: client.detokenize([200 + i % 100 for i in range(480_000)]),
    "Tokenize": lambda client: client.tokenize(noise(1_000_000)),
    "Tokenize turns": lambda client: client.tokenize([Message(role="user", text="a")] * 120_000),
    "Generate ids": lambda client: client.generate([200] * 480_000),
    "Generate turns": lambda client: client.generate([Message(role="user", text="a")] * 120_000),
    "Score": lambda client: client.score([20], [[200] * 1800] * 250),
    "Score unknown": lambda client: client.score([20], [[5000] * 1800] * 250),
    "Adapt": lambda client: client.adapt("ann", noise(1_000_000)),
    "EvaluateMemory": lambda client: client.evaluate_memory("ann", [noise(3_900)] * 250),
}


@pytest.fixture
async def long_server(open_server):
    async with open_server(max_message_bytes=2**20) as server:
        yield server


@pytest.mark.parametrize("name", CALLS)
async def test_a_long_message_holds_nobody_up(long_server, name):
    """The best of two goes: somebody else may hold up one of them."""
    async with connect(long_server) as client:
        pauses = []
        for _ in range(2):
            call = asyncio.create_task(_ended(CALLS[name](client)))
            pauses.append(await _longest_pause(call))
            if pauses[-1] < PAUSE:
                break
        assert min(pauses) < PAUSE


async def _ended(call) -> None:
    """Most are refused; how long it takes is what matters here."""
    try:
        async with asyncio.timeout(6):
            await call
    except (HopeError, TimeoutError):
        pass


async def _longest_pause(call) -> float:
    """Of the event loop that serves, while a call is served on it."""
    longest, last = 0.0, time.perf_counter()
    while not call.done():
        await asyncio.sleep(0.002)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    return longest


async def test_more_long_messages_than_fit_are_refused_and_short_ones_are_not(open_server):
    async with open_server(max_message_bytes=2**16) as server, connect(server) as client:
        text = noise(2**16 - 100)
        calls = [asyncio.create_task(client.tokenize(text)) for _ in range(30)]
        assert len(await client.tokenize("tea")) > 0
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exhausted)]
        assert 0 < len(refused) < len(calls) - 4
        assert all(error.reason == "CONCURRENCY" and str(8 * 2**16) in str(error) for error in refused)
        assert len({outcome for outcome in outcomes if isinstance(outcome, tuple)}) == 1
        assert await client.tokenize(text) in outcomes


async def test_a_thousand_biases_cost_a_generation_next_to_nothing(long_server):
    """One operation for all of them, in every step."""
    async with connect(long_server) as client:
        biases = tuple((token, 0.5) for token in range(6, 380))
        seconds = []
        for bias in ((), biases):
            sampling = SamplingParams(temperature=1.0, max_tokens=60, ignore_eos=True, logit_bias=bias, seed=1)
            began = time.perf_counter()
            await client.generate("tea", sampling=sampling)
            seconds.append(time.perf_counter() - began)
        assert seconds[1] < 3 * seconds[0] + 0.2
