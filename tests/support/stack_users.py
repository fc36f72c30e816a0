"""Users of a fleet, who call through its proxy without retries of their own, and note what failed or was promised."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager

from hope_serve.client import AsyncHopeClient, MemoryChoice, SamplingParams
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import HopeError

SHORT = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
TIMEOUT_SECONDS = 60
VOCABULARY = range(6, 300)


class Users:
    """``failures``: (call, error) of every call that failed. ``calls``: how many were made."""

    def __init__(self, target, names):
        self._target = target
        self._names = names
        self._promised = {name: [] for name in names}
        self.failures = []
        self.calls = 0
        self.broken_promises = []

    @asynccontextmanager
    async def calling(self):
        """Everybody calls for as long as the block lasts; at its end nothing is under way."""
        self._stop = asyncio.Event()
        async with AsyncHopeClient(self._target, patient(retries=False)) as client:
            tasks = [asyncio.create_task(self._live(client, name)) for name in self._names]
            try:
                yield
            finally:
                self._stop.set()
                await asyncio.gather(*tasks)

    async def check_promises(self, client):
        """Every acknowledged Adapt became the next version, none is missing and none was applied twice."""
        for name, versions in self._promised.items():
            assert versions == list(range(1, len(versions) + 1)), f"{name} was promised {versions}"
            assert (await client.get_memory(name)).version == len(versions)
            newest = (await client.list_versions(name))[-1]
            assert newest.request_id == f"{name}-{len(versions)}"

    async def _live(self, client, name):
        draw = random.Random(name)
        number = 0
        while not self._stop.is_set():
            number += 1
            lesson = [draw.choice(VOCABULARY) for _ in range(draw.randrange(2, 12))]
            taught = await self._try("Adapt", client.adapt(name, lesson, request_id=f"{name}-{number}"))
            if taught:
                self._promised[name].append(taught.version)
            await self._read(client, name)
            await self._try("GenerateStream", self._streamed(client, name))

    async def _read(self, client, name):
        known = max(self._promised[name], default=0)
        choice = MemoryChoice(min_version=known or None)
        answer = await self._try("Generate", client.generate([6, 7, 8], user_id=name, sampling=SHORT, memory=choice))
        if answer and answer.started.memory_version < known:
            self.broken_promises.append((name, known, answer.started.memory_version))

    async def _streamed(self, client, name):
        async for _ in client.stream([6, 7, 8], user_id=name, sampling=SHORT):
            pass

    async def _try(self, call, work):
        self.calls += 1
        try:
            return await work
        except HopeError as error:
            self.failures.append((call, error))
            return None


def patient(*, retries=True):
    """Options of a client that waits for a busy machine."""
    return ChannelOptions(timeout_seconds=TIMEOUT_SECONDS, retries=retries)
