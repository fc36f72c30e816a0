"""Memories of a given size, and percentiles of how long things took."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

from hope_serve.api import Owner
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.memory.snapshot import Snapshot, TensorBytes
from hope_serve.memory.store import Commit, Committed

MODEL = "f" * 64
MIB = 2**20
NUM_TENSORS = 8


def owner(name: str) -> Owner:
    """A user of the benchmark."""
    return Owner(tenant="bench", user=name)


def memory(num_bytes: int) -> Snapshot:
    """Random bytes in eight tensors: nothing in them can be compressed or found again."""
    part = num_bytes // NUM_TENSORS
    names = [f"{i}.delta" for i in range(NUM_TENSORS)]
    tensors = {name: TensorBytes(dtype="uint8", shape=(part,), data=os.urandom(part)) for name in names}
    return Snapshot(fingerprint=MODEL, schema=1, tensors=tensors, counters={"tokens": 1})


def counters_alone(tokens: int) -> Snapshot:
    """What is committed when no level moved."""
    return Snapshot(fingerprint=MODEL, schema=1, tensors={}, counters={"tokens": tokens})


async def write(store: SealedStore, who: Owner, base: Committed | None, snapshot: Snapshot, unmoved=frozenset()):
    """One commit on ``base``."""
    version = base.version if base else 0
    commit = Commit(
        base_version=version,
        base_mark=base.mark if base else None,
        request_id=f"r{version}",
        request_digest="d",
        snapshot=snapshot,
        unmoved=unmoved,
    )
    outcome = await store.commit(who, commit)
    assert isinstance(outcome, Committed), outcome
    return outcome


async def seconds_of(work: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """How long each of ``rounds`` goes took."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    return took


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Milliseconds."""
    return 1e3 * statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]
