"""Users who teach and ask at a pace, try again what was UNAVAILABLE, and remember what they were promised."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from hope_serve.client import AsyncHopeClient, MemoryChoice, SamplingParams
from hope_serve.errors import HopeError, NotFound, Unavailable

T = TypeVar("T")
VOCABULARY = range(16, 300)
PROMPT = (6, 7, 8, 9)
LESSON_TOKENS = (16, 64)
SHORT = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
PAUSE_SECONDS = 0.2
GIVE_UP_SECONDS = 120.0


class Crowd:
    """A round of one user: an Adapt, a Generate that must see it, a stream.

    Args:
        clients: of each tenant; the first has half of the users, the next half of the others, and so on.
        num_users: of all tenants.

    ``rounds``: (when it began, how long it took, both in seconds) of those that ended. ``faults``: what should not
    have happened, in words. ``retries``: calls that were UNAVAILABLE and were sent again, by the error's reason.
    """

    def __init__(self, clients: Sequence[AsyncHopeClient], num_users: int) -> None:
        self._draw = random.Random(0)
        self._idle = [f"soak-{number}" for number in range(num_users)]
        self._clients = {name: clients[_tenant(number, len(clients))] for number, name in enumerate(self._idle)}
        self._came_back = asyncio.Event()
        self._rounds: set[asyncio.Task[None]] = set()
        self._known = dict.fromkeys(self._idle, 0)
        self.rounds: list[tuple[float, float]] = []
        self.faults: list[str] = []
        self.retries: Counter[str] = Counter()
        self.late = 0

    @property
    def acknowledged(self) -> int:
        """Adapts that the fleet said are safe."""
        return sum(self._known.values())

    async def run(self, *, seconds: float, rate: float | None) -> float:
        """Begin ``rate`` rounds a second, at random moments, for so long; None begins one whenever a user is idle.

        Returns the rounds a second that ended.
        """
        began, before = time.monotonic(), len(self.rounds)
        due = began
        while (now := time.monotonic()) < began + seconds:
            if rate is not None:
                due += self._draw.expovariate(rate)
                await asyncio.sleep(max(0.0, due - now))
            await self._begin_round()
        return (len(self.rounds) - before) / (time.monotonic() - began)

    async def rest(self) -> None:
        """Returns when nothing is under way."""
        while self._rounds:
            await asyncio.wait(self._rounds)

    async def check_promises(self) -> int:
        """Look at every memory; what is lost or applied twice becomes a fault. Returns the Adapts that are there."""
        found = 0
        for name, known in self._known.items():
            if known:
                version, request = await self._newest(name)
                found += version
                if (version, request) != (known, f"{name}.{known}"):
                    self.faults.append(f"{name} was promised {known} Adapts; the newest is {request} as {version}")
        return found

    async def _newest(self, name: str) -> tuple[int, str]:
        try:
            newest = (await self._clients[name].list_versions(name))[-1]
        except NotFound:
            return 0, "none"
        return newest.version, newest.request_id

    async def _begin_round(self) -> None:
        if not self._idle:
            self.late += 1
        while not self._idle:
            self._came_back.clear()
            await self._came_back.wait()
        name = self._idle.pop(self._draw.randrange(len(self._idle)))
        task = asyncio.create_task(self._round(name))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    async def _round(self, name: str) -> None:
        began = time.monotonic()
        try:
            await self._teach(name)
            await self._ask(name)
            await self._until_there("GenerateStream", lambda: self._streamed(name))
            self.rounds.append((began, time.monotonic() - began))
        except HopeError as error:
            self.faults.append(f"{name}: {type(error).__name__} {error.reason}: {error}")
        finally:
            self._idle.append(name)
            self._came_back.set()

    async def _teach(self, name: str) -> None:
        due = self._known[name] + 1
        lesson = [self._draw.choice(VOCABULARY) for _ in range(self._draw.randint(*LESSON_TOKENS))]
        taught = await self._until_there(
            "Adapt", lambda: self._clients[name].adapt(name, lesson, request_id=f"{name}.{due}")
        )
        if taught.version != due:
            self.faults.append(f"{name}: Adapt {due} became version {taught.version}")
        self._known[name] = due

    async def _ask(self, name: str) -> None:
        known = MemoryChoice(min_version=self._known[name])
        answer = await self._until_there(
            "Generate", lambda: self._clients[name].generate(PROMPT, user_id=name, sampling=SHORT, memory=known)
        )
        if answer.started.memory_version != self._known[name]:
            self.faults.append(f"{name}: read version {answer.started.memory_version} of {self._known[name]}")

    async def _streamed(self, name: str) -> None:
        async for _ in self._clients[name].stream(PROMPT, user_id=name, sampling=SHORT):
            pass

    async def _until_there(self, call: str, make: Callable[[], Awaitable[T]]) -> T:
        give_up = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                return await make()
            except Unavailable as error:
                if time.monotonic() > give_up:
                    raise
                self.retries[f"{call} {error.reason}"] += 1
            await asyncio.sleep(self._draw.uniform(PAUSE_SECONDS / 2, PAUSE_SECONDS))


def _tenant(number: int, count: int) -> int:
    """0 for every second number, 1 for every second of the others, …, the last for the rest."""
    for tenant in range(count - 1):
        if number % 2 == 0:
            return tenant
        number //= 2
    return count - 1
