"""Three pods are killed over and over, their links to the store fail, fifty users write: nothing is lost or doubled."""

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass

import pytest
from support.chaos_pods import Pods
from support.chaos_users import Crowd
from support.redis_server import RedisServer
from support.server_nursery import Nursery
from support.store_history import violations
from support.tiny_model import write_tiny_checkpoint

from hope_serve.client import AsyncHopeClient
from hope_serve.client.channel import ChannelOptions
from hope_serve.memory.redis.make import install_functions

PODS = 3
USERS = 50
KILL_EVERY = 2.0
CLEAN_SERVERS = 2


@dataclass(frozen=True)
class Size:
    """A storm lasts this many seconds, and until this many Adapts were acknowledged."""

    seconds: float
    adapts: int


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(8, 60), id="eight seconds", marks=pytest.mark.timeout(240)),
        pytest.param(Size(60, 10_000), id="10,000 adapts", marks=[pytest.mark.nightly, pytest.mark.timeout(7200)]),
    ],
)
async def test_no_acknowledged_adapt_is_lost_or_doubled_while_pods_die(tmp_path, size):
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", num_layers=1)
    redis = RedisServer(tmp_path / "redis").start()
    await install_functions(redis.url)
    async with contextlib.AsyncExitStack() as closing:
        closing.callback(redis.kill)
        nursery = Nursery()
        closing.callback(nursery.close)
        pods = Pods(nursery, tmp_path, count=PODS, redis_port=redis.port, checkpoint=checkpoint)
        closing.push_async_callback(pods.close)
        await pods.start()
        clients = [await closing.enter_async_context(_client(target)) for target in pods.targets]
        crowd = Crowd(clients, USERS)
        await storm(pods, crowd, size)
        digests = await crowd.collect(clients[0])
        equal = await replay(nursery, tmp_path, checkpoint, crowd, digests)
    print("\n" + summary(crowd, pods, equal))
    assert violations(crowd.history) == []
    assert equal == USERS
    assert crowd.tries > len(crowd.history.sent), "nothing had to be tried twice"


async def storm(pods, crowd, size):
    """Faults and writers together; then calm, until every request is acknowledged."""
    writers = crowd.begin()
    pods.begin_storm(kill_every=KILL_EVERY)
    end = time.monotonic() + size.seconds
    while time.monotonic() < end or len(crowd.done) < size.adapts:
        done, _ = await asyncio.wait(writers, timeout=0.2)
        for task in done:
            await task  # a writer ends early only by an error that no client should see
        assert not pods.crashes, pods.crashes[0]
    await pods.end_storm()
    crowd.stop()
    await asyncio.gather(*writers)


async def replay(nursery, folder, checkpoint, crowd, digests):
    """Each user's applied requests in order, on servers that nobody disturbs: how many users come to the same memory.

    Every version's digest is compared, not only the last.
    """

    async def teach(client, user):
        for version, (request, _) in enumerate(crowd.history.final[user], 1):
            result = await client.adapt(user, crowd.texts[request], request_id=request)
            if crowd.digests.get((user, version), result.state_digest) != result.state_digest:
                return False
        return result.state_digest == digests[user]

    async with contextlib.AsyncExitStack() as closing:
        clients = []
        for number in range(CLEAN_SERVERS):
            store = f"sqlite://{folder}/clean{number}.db"
            options = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0", "checkpoint": checkpoint}
            _, target = await nursery.start(folder / f"clean{number}.log", memory=store, **options)
            clients.append(await closing.enter_async_context(_client(target)))
        users = enumerate(crowd.history.final)
        return sum(await asyncio.gather(*(teach(clients[number % CLEAN_SERVERS], user) for number, user in users)))


def summary(crowd, pods, equal):
    history = crowd.history
    acknowledged = {(ack.owner, ack.request) for ack in history.acknowledged}
    applied = Counter((owner, request) for owner, final in history.final.items() for request, _ in final)
    return (
        f"adapts acknowledged {len(acknowledged)}, lost {len(acknowledged - applied.keys())}, "
        f"applied twice {sum(count > 1 for count in applied.values())}; tries {crowd.tries}, "
        f"answered as repeated {crowd.duplicates}; pods killed {pods.kills}, replies dropped {pods.dropped}, "
        f"links stalled {pods.stalls}; fresh reads checked {len(history.reads)}; "
        f"users replayed with equal digest {equal} of {len(history.final)}"
    )


def _client(target):
    return AsyncHopeClient(target, ChannelOptions(timeout_seconds=60, retries=False))
