"""A process that learns until it is killed: one line on its output for every acknowledged commit.

Run as ``python store_worker.py URL NAME``. Each user's memory holds the list of requests applied to it, so that a
lost or repeated application shows. Lines read ``ask USER REQUEST`` before a commit, ``ack USER REQUEST VERSION`` after.
"""

import asyncio
import random
import sys

from hope_serve.api import Owner
from hope_serve.memory.snapshot import CHUNK_BYTES, Snapshot, TensorBytes
from hope_serve.memory.store import Commit, Committed, Conflict, Duplicate
from hope_serve.memory.url import make_store

USERS = [Owner(tenant="t", user=f"u{i}") for i in range(3)]
MODEL = "ee" * 32


def applied(snapshot):
    """The requests that a memory has learned, in order."""
    return snapshot.counters["applied"].split()


def learned(before, request):
    """The memory after one more request; a few chunks large, different every time."""
    history = [*(applied(before) if before else [])[-200:], request]
    data = random.Random(request).randbytes(CHUNK_BYTES + 5000)
    tensors = {"delta": TensorBytes(dtype="uint8", shape=(len(data),), data=data)}
    return Snapshot(fingerprint=MODEL, schema=1, tensors=tensors, counters={"applied": " ".join(history)})


async def learn(store, owner, request):
    """Adapt the owner's memory once, whoever else writes; the version that holds it."""
    while True:
        if earlier := await store.find_request(owner, request, "d"):
            return earlier.version
        head = await store.head(owner)
        before = None
        if head.exists:
            stored = await store.load(owner, fingerprint=MODEL)
            before, base = stored.snapshot, stored.version
        else:
            base = head.version
        outcome = await store.commit(
            owner, Commit(base_version=base, request_id=request, request_digest="d", snapshot=learned(before, request))
        )
        if isinstance(outcome, Committed | Duplicate):
            return outcome.version
        assert isinstance(outcome, Conflict)


async def work(url, name, retries):
    store = make_store(url)
    await store.open()
    rng = random.Random()
    number = 0
    while True:
        if retries:
            user, request = retries.pop()
        else:
            number += 1
            user, request = rng.randrange(len(USERS)), f"{name}.{number}"
        print("ask", user, request, flush=True)
        version = await learn(store, USERS[user], request)
        print("ack", user, request, version, flush=True)


if __name__ == "__main__":
    given = [tuple(pair.split("=")) for pair in sys.argv[3:]]
    asyncio.run(work(sys.argv[1], sys.argv[2], [(int(user), request) for user, request in given]))
