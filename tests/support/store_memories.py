"""Small memories to store, told apart by a seed."""

import random

from hope_serve.api import Owner
from hope_serve.memory.snapshot import CHUNK_BYTES, Snapshot, TensorBytes
from hope_serve.memory.store import Commit, StoredSession

MODEL = "ab" * 32
OTHER_MODEL = "cd" * 32
ALICE = Owner(tenant="acme", user="alice")
BOB = Owner(tenant="acme", user="bob")


def tensor(seed, num_bytes=4096):
    data = random.Random(seed).randbytes(num_bytes)
    return TensorBytes(dtype="uint8", shape=(num_bytes,), data=data)


def memory(seed, *, fingerprint=MODEL, **counters):
    """Three tensors: a small one, one of several chunks, an empty one."""
    tensors = {
        "level0.delta": tensor(f"{seed}/0"),
        "level1.delta": tensor(f"{seed}/1", 2 * CHUNK_BYTES + 13),
        "nothing": TensorBytes(dtype="float32", shape=(0, 4), data=b""),
    }
    return Snapshot(
        fingerprint=fingerprint, schema=1, tensors=tensors, counters={"tokens_learned": seed, "drift": 0.25} | counters
    )


def small(seed, *, fingerprint=MODEL):
    return Snapshot(
        fingerprint=fingerprint, schema=1, tensors={"delta": tensor(seed, 64)}, counters={"tokens_learned": seed}
    )


def step(base, snapshot, *, request_id=None, digest="d", **options):
    """A commit on a base version; its request id is named after the base unless given."""
    return Commit(
        base_version=base,
        request_id=request_id or f"request-{base}",
        request_digest=digest,
        snapshot=snapshot,
        result=f"result of {request_id or base}".encode(),
        **options,
    )


async def write_versions(store, owner, count, *, first=1, make=small):
    """Commit ``count`` versions; version v holds ``make(v)``."""
    for version in range(first, first + count):
        outcome = await store.commit(owner, step(version - 1, make(version)))
        assert outcome.version == version


def content(snapshot):
    """All that a snapshot holds, to compare."""
    return {name: (t.dtype, t.shape, bytes(t.data)) for name, t in snapshot.tensors.items()}, dict(snapshot.counters)


def session(turn, *, base=0, seed=None):
    return StoredSession(turn=turn, base_version=base, snapshot=memory(seed if seed is not None else turn))
