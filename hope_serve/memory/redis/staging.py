"""Chunks on their way in and out: a few at a time, so that other clients get their turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from hope_serve.memory.backend import Place
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.calls import Calls
from hope_serve.memory.redis.link import Command

STAGED_MS = 120_000
BATCH_CHUNKS = 4


async def stage_chunks(calls: Calls, key: str, chunks: Sequence[bytes]) -> None:
    """Write chunks under a key that vanishes unless a commit keeps it."""
    for start in range(0, len(chunks), BATCH_CHUNKS):
        batch: list[Command] = [
            ("HSET", key, number, chunk) for number, chunk in enumerate(chunks[start : start + BATCH_CHUNKS], start)
        ]
        await calls.stage(key, [*batch, ("PEXPIRE", key, STAGED_MS)])


async def fetch_chunks(calls: Calls, owner: str, places: Sequence[Place]) -> Mapping[Place, bytes]:
    """The chunks that are there."""
    found: dict[Place, bytes] = {}
    for generation, numbers in _batches(places):
        values = await calls.plain(key := layout.chunks(owner, generation), ("HMGET", key, *numbers), bulk=True)
        assert isinstance(values, list)
        found |= {(generation, n): value for n, value in zip(numbers, values, strict=True) if isinstance(value, bytes)}
    return found


async def fetch_session_chunks(calls: Calls, owner: str, generation: str) -> list[bytes]:
    """A conversation's chunks, in order; those before the first that is missing."""
    key = layout.session_chunks(owner, generation)
    found: list[bytes] = []
    while True:
        numbers = range(len(found), len(found) + BATCH_CHUNKS)
        values = await calls.plain(key, ("HMGET", key, *numbers), bulk=True)
        assert isinstance(values, list)
        there = list(itertools.takewhile(lambda value: isinstance(value, bytes), values))
        found.extend(value for value in there if isinstance(value, bytes))
        if len(there) < BATCH_CHUNKS:
            return found


def _batches(places: Sequence[Place]) -> Iterator[tuple[str, list[int]]]:
    """Places by generation, a few numbers at a time."""
    for generation, group in itertools.groupby(sorted(places), key=lambda place: place[0]):
        numbers = [number for _, number in group]
        for start in range(0, len(numbers), BATCH_CHUNKS):
            yield generation, numbers[start : start + BATCH_CHUNKS]
