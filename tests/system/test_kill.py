"""kill -9 of a real server at random moments, while clients retry: nothing acknowledged is lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from support.ports import free_port
from support.tiny_model import write_tiny_checkpoint

from hope_serve.cli.server_process import ServerProcess
from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import DeadlineExceeded, Unavailable

USERS = 4
RETRY_SECONDS = 0.1


@dataclass
class Learner:
    """One user who teaches documents in order, each until it is acknowledged."""

    user_id: str
    seed: int
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)
    taught: list[list[int]] = field(default_factory=list)
    attempts: int = 0

    async def run(self, client, stop, in_flight):
        draw = random.Random(self.seed)
        while not stop.is_set():
            tokens = [draw.randrange(6, 300) for _ in range(draw.randrange(2, 60))]
            request_id = f"{self.user_id}-{len(self.taught)}"
            self.taught.append(tokens)
            result = await self._until_acknowledged(client, tokens, request_id, in_flight)
            self.acknowledged.append((request_id, result.version, result.state_digest))

    async def _until_acknowledged(self, client, tokens, request_id, in_flight):
        while True:
            self.attempts += 1
            in_flight.add(request_id)
            try:
                return await client.adapt(self.user_id, tokens, request_id=request_id, timeout_seconds=20)
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                in_flight.discard(request_id)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, id="3 kills", marks=pytest.mark.timeout(300)),
        pytest.param(200, id="200 kills", marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
    ],
)
async def test_no_acknowledged_adapt_is_lost_and_none_applied_twice(tmp_path, kills):
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    options = {
        "checkpoint": str(checkpoint),
        "memory": f"sqlite://{tmp_path}/memory.db",
        "listen": f"127.0.0.1:{free_port()}",
        "log": tmp_path / "server.log",
    }
    learners = [Learner(f"user-{i}", seed=i) for i in range(USERS)]
    stop, in_flight, draw = asyncio.Event(), InFlight(), random.Random(1)
    async with AsyncHopeClient(options["listen"], ChannelOptions(timeout_seconds=20)) as client:
        tasks = [asyncio.create_task(learner.run(client, stop, in_flight)) for learner in learners]
        for _ in range(kills):
            server = await asyncio.to_thread(ServerProcess, **options)
            await asyncio.sleep(draw.uniform(0.0, 0.8))
            await in_flight.some.wait()
            server.kill()
        server = await asyncio.to_thread(ServerProcess, **options)
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*tasks)
        for learner in learners:
            await check(client, learner)
        await asyncio.to_thread(server.stop)
    assert sum(learner.attempts for learner in learners) > sum(len(learner.taught) for learner in learners)
    await replay(learners, options, tmp_path)


async def check(client, learner):
    """Every acknowledged document is exactly one version, in order, and the memory holds just these tokens."""
    assert learner.acknowledged, "the user was never served"
    assert [version for _, version, _ in learner.acknowledged] == list(range(1, len(learner.acknowledged) + 1))
    memory = await client.get_memory(learner.user_id)
    assert memory.version == len(learner.taught)
    assert memory.tokens_learned == sum(len(tokens) - 1 for tokens in learner.taught)
    assert memory.state_digest == learner.acknowledged[-1][2]
    versions = await client.list_versions(learner.user_id)
    assert len({v.request_id for v in versions}) == len(versions)


async def replay(learners, options, tmp_path):
    """The same documents in order, on a server that nobody kills, lead to the same memories."""
    clean = options | {"memory": f"sqlite://{tmp_path}/clean.db", "listen": "127.0.0.1:0"}
    server = await asyncio.to_thread(ServerProcess, **clean)
    async with AsyncHopeClient(server.target) as client:
        for learner in learners:
            for tokens, (request_id, version, digest) in zip(learner.taught, learner.acknowledged, strict=True):
                result = await client.adapt(learner.user_id, tokens, request_id=request_id)
                assert (result.version, result.state_digest) == (version, digest)
    await asyncio.to_thread(server.stop)


class InFlight(set):
    """Ids of calls under way; ``some`` is set while there are any."""

    def __init__(self):
        super().__init__()
        self.some = asyncio.Event()

    def add(self, request_id):
        super().add(request_id)
        self.some.set()

    def discard(self, request_id):
        super().discard(request_id)
        if not self:
            self.some.clear()
