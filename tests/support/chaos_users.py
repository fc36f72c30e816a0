"""Users who teach their memories through whichever pod answers, and a record of all they were told."""

import asyncio
import random
import time

from support.store_history import Acknowledged, History, Read, Sent

from hope_serve.client import MemoryChoice, SamplingParams
from hope_serve.errors import DeadlineExceeded, Exhausted, NotFound, Unavailable

TRY_AGAIN = (Unavailable, DeadlineExceeded, Exhausted)
PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 2.0
TOKENS = (2, 10)
TRY_SECONDS = 10.0
HASTE_SECONDS = 0.05
"""How soon a client gives up that will not wait: in the middle of a commit, as often as not."""


class Crowd:
    """Users and what they saw. Every fifth one writes from two devices at a time.

    Args:
        clients: one for each pod.
    """

    def __init__(self, clients, users):
        self._clients = clients
        self._users = [f"user-{number}" for number in range(users)]
        self._stop = asyncio.Event()
        self._twins = set()
        self._acknowledged = dict.fromkeys(self._users, 0)
        self.history = History()
        self.texts = {}
        self.digests = {}
        self.done = set()
        self.tries = 0
        self.duplicates = 0

    def begin(self):
        """Everybody starts to write; returns the tasks, which end some time after ``stop``."""
        devices = [(user, "a") for user in self._users] + [(user, "b") for user in self._users[::5]]
        return [asyncio.create_task(self._write(user, device)) for user, device in devices]

    def stop(self):
        """Nobody begins a new request; those under way go on until they are acknowledged."""
        self._stop.set()

    async def _write(self, user, device):
        draw = random.Random(f"{user}/{device}")
        number = 0
        while not self._stop.is_set():
            request = f"{user}.{device}.{number}"
            number += 1
            self.texts[request] = [draw.randrange(6, 300) for _ in range(draw.randrange(*TOKENS))]
            self.history.sent.append(Sent(user, request, _payload(self.texts[request]), time.monotonic()))
            if draw.random() < 0.1:
                self._twins.add(asyncio.create_task(self._twin(user, request, draw)))
            await self._until_acknowledged(user, request, draw)
            if draw.random() < 0.1:
                await self._read(user, draw)
        await asyncio.gather(*self._twins)

    async def _until_acknowledged(self, user, request, draw):
        seconds, pause = HASTE_SECONDS if draw.random() < 0.05 else TRY_SECONDS, PAUSE_SECONDS
        while not await self._adapt(user, request, draw.choice(self._clients), seconds):
            await asyncio.sleep(draw.uniform(0, pause))
            seconds, pause = TRY_SECONDS, min(2 * pause, MAX_PAUSE_SECONDS)

    async def _twin(self, user, request, draw):
        """The same request once more, at the same time, perhaps at another pod."""
        await self._adapt(user, request, draw.choice(self._clients), TRY_SECONDS)

    async def _adapt(self, user, request, client, seconds):
        """One try; whether it was acknowledged."""
        tokens = self.texts[request]
        self.tries += 1
        try:
            result = await client.adapt(user, tokens, request_id=request, timeout_seconds=seconds)
        except TRY_AGAIN:
            return False
        self.done.add(request)
        self.history.acknowledged.append(
            Acknowledged(user, request, _payload(tokens), result.version, time.monotonic())
        )
        self.duplicates += result.duplicate
        self._acknowledged[user] = max(self._acknowledged[user], result.version)
        digest = self.digests.setdefault((user, result.version), result.state_digest)
        assert digest == result.state_digest, f"two digests of version {result.version} of {user}"
        return True

    async def _read(self, user, draw):
        """What was acknowledged is read on any pod, or the pod says that it cannot tell."""
        began, known = time.monotonic(), self._acknowledged[user]
        try:
            answer = await draw.choice(self._clients).generate(
                [6, 7, 8],
                user_id=user,
                sampling=SamplingParams(max_tokens=1),
                memory=MemoryChoice(min_version=known),
                timeout_seconds=TRY_SECONDS,
            )
            version = answer.started.memory_version
        except NotFound:
            version = 0
        except TRY_AGAIN:
            return
        self.history.reads.append(Read(user, version, None, began, known))

    async def collect(self, client):
        """The memories as they are: fills ``history.final``; returns user to digest."""
        digests = {}
        for user in self._users:
            reports = await client.list_versions(user)
            assert [report.version for report in reports] == list(range(1, len(reports) + 1))
            requests = [report.request_id for report in reports]
            self.history.final[user] = tuple((request, _payload(self.texts[request])) for request in requests)
            digests[user] = (await client.get_memory(user)).state_digest
        return digests


def _payload(tokens):
    return " ".join(map(str, tokens))
