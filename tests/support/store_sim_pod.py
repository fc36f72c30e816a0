"""Simulated pods: the real store on a simulated Redis, and an engine as small as can be that caches what it read."""

import hashlib

from support.redis_sim import EPOCH, SimLink

from hope_serve.memory.keys import single_key
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.redis.backend import RedisBackend
from hope_serve.memory.redis.calls import Calls
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.memory.snapshot import Snapshot, TensorBytes
from hope_serve.memory.store import Commit, Committed, Conflict, Duplicate

MODEL = "aa" * 32
KEYS = single_key(bytes(range(32)), key_id="k", encrypts=True)


class Plain:
    """What stands behind the calls of a simulated pod: nothing to check, nothing to close."""

    async def open(self, calls):
        calls.epoch = EPOCH

    async def close(self):
        pass

    def on_erased(self, tell):
        pass


class Pod:
    """A server process: the real store, and memories cached by version."""

    calls = Calls
    link = SimLink

    def __init__(self, sim, cluster, name, durability):
        self.sim = sim
        self.name = name
        self.wire = self.link(sim, cluster, name)
        calls = self.calls(self.wire, durability, wait_ms=1000)
        self.store = SealedStore(RedisBackend(calls, Plain()), KEYS, StoreOptions(clock=sim.clock))
        self.cache = {}
        self.is_open = False

    async def ready(self):
        if not self.is_open:
            await self.store.open()
            self.is_open = True

    async def adapt(self, owner, request, payload):
        """Learn once; the version that holds it. Raises HopeError."""
        await self.ready()
        while True:
            if earlier := await self.store.find_request(owner, request, payload):
                return earlier.version
            head, applied = await self.current(owner)
            await self.sim.sleep(self.sim.rng.expovariate(1 / 0.02))
            outcome = await self.store.commit(owner, commit_of(head, applied, request, payload))
            if isinstance(outcome, Committed):
                self.cache[owner] = (outcome.version, outcome.mark), (*applied, (request, payload))
                return outcome.version
            if isinstance(outcome, Duplicate):
                self.cache.pop(owner, None)
                return outcome.version
            assert isinstance(outcome, Conflict)
            await self.after_conflict(owner, applied, request, payload, outcome)

    async def after_conflict(self, owner, applied, request, payload, outcome):
        self.cache.pop(owner, None)

    async def current(self, owner):
        """Version, mark and content from the cache if there is one, whoever wrote since; else from the store."""
        if owner in self.cache:
            return self.cache[owner]
        return await self.fresh(owner)

    async def fresh(self, owner):
        head = await self.store.head(owner)
        if not head.exists:
            return (head.version, head.mark), ()
        stored = await self.store.load(owner, fingerprint=MODEL)
        self.cache[owner] = (stored.version, stored.mark), content_of(stored.snapshot)
        return self.cache[owner]

    async def read(self, owner, min_version):
        """What Generate sees: the cached memory if it is the current one. None when it is older than asked for."""
        await self.ready()
        head = await self.store.head(owner)
        if head.version < min_version:
            return None
        (version, mark), applied = self.cache.get(owner, ((0, ""), ()))
        if head.exists and (version, mark) == (head.version, head.mark):
            return version, applied
        (version, _), applied = await self.fresh(owner)
        return version, applied


def commit_of(head, applied, request, payload):
    return Commit(
        base_version=head[0],
        base_mark=head[1],
        request_id=request,
        request_digest=payload,
        snapshot=learned((*applied, (request, payload))),
        result=request.encode(),
    )


def learned(applied):
    """A memory that holds these requests in this order, and a hash over all of them as its one tensor."""
    chain = b""
    for request, payload in applied:
        chain = hashlib.sha256(chain + f"{request}|{payload}".encode()).digest()
    text = " ".join(f"{request}|{payload}" for request, payload in applied)
    tensors = {"delta": TensorBytes(dtype="uint8", shape=(32,), data=chain)}
    return Snapshot(fingerprint=MODEL, schema=1, tensors=tensors, counters={"applied": text})


def content_of(snapshot):
    """The requests that a memory holds. Raises AssertionError when tensor and counters do not belong together."""
    applied = tuple(tuple(entry.split("|")) for entry in snapshot.counters["applied"].split())
    assert bytes(snapshot.tensors["delta"].data) == bytes(learned(applied).tensors["delta"].data)
    return applied
