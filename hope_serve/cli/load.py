"""Load for a server, through its real RPCs, and what came of it."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from hope_serve.api import Delta, SamplingParams
from hope_serve.client import AsyncHopeClient

PERCENTILES = (50, 90, 99)
FIRST_ORDINARY_TOKEN = 16
"""Below it lie the template's own tokens."""


@dataclass(kw_only=True)
class Stream:
    """One generation as its reader saw it, in seconds."""

    first_token: float = 0.0
    gaps: list[float] = field(default_factory=list)
    num_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Streams that ran together. Times are milliseconds at the percentiles of PERCENTILES."""

    streams: int
    tokens: int
    seconds: float
    tokens_per_second: float
    first_token_ms: dict[str, float]
    between_tokens_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ReturnReport:
    """First token of a user whose memory has to be fetched from the store, by how much the memory had learned."""

    adapted_tokens: int
    memory_bytes: int
    first_token_ms: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A user of the load's, the tokens that its memory has learned, and the version it is at."""

    user: str
    tokens: int
    version: int


class Load:
    """Makes prompts of random tokens and times what comes back; greedy, with the end of turn ignored."""

    def __init__(self, client: AsyncHopeClient, *, vocab_size: int, prompt_tokens: int, max_tokens: int) -> None:
        self._client = client
        self._vocab_size = vocab_size
        self._prompt_tokens = prompt_tokens
        self._sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)
        self._random = random.Random(0)  # noqa: S311  reproducible, not secret

    async def together(self, streams: int) -> LoadReport:
        """So many generations at once."""
        start = time.perf_counter()
        done = await asyncio.gather(*(self._stream(self._sampling) for _ in range(streams)))
        seconds = time.perf_counter() - start
        tokens = sum(stream.num_tokens for stream in done)
        return LoadReport(
            streams=streams,
            tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
            first_token_ms=percentiles([stream.first_token for stream in done]),
            between_tokens_ms=percentiles([gap for stream in done for gap in stream.gaps]),
        )

    async def taught(self, tokens: int, piece_tokens: int) -> Taught:
        """A new user who has been taught so many tokens."""
        user, version = f"bench-{uuid4().hex[:8]}", 0
        for at in range(0, tokens, piece_tokens):
            lesson = self._tokens(min(piece_tokens, max(2, tokens - at)))
            version = (await self._client.adapt(user, lesson)).version
        return Taught(user=user, tokens=tokens, version=version)

    async def returning(self, users: Sequence[Taught], rounds: int) -> list[ReturnReport]:
        """Time the first token of several returns of each user from the store, then forget them.

        The users return in turn: what else the machine does meanwhile falls on all alike.
        """
        one = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
        versions = {user.user: user.version for user in users}
        times: dict[str, list[float]] = {user: [] for user in versions}
        for _ in range(rounds):
            for user, version in versions.items():
                # So that no tier but the store holds it.
                versions[user] = await self._client.rollback_memory(user, version)
                times[user].append((await self._stream(one, user)).first_token)
        reports = []
        for taught in users:
            num_bytes = (await self._client.get_memory(taught.user)).num_bytes
            await self._client.delete_memory(taught.user)
            first = percentiles(times[taught.user])
            reports.append(ReturnReport(adapted_tokens=taught.tokens, memory_bytes=num_bytes, first_token_ms=first))
        return reports

    async def _stream(self, sampling: SamplingParams, user: str = "") -> Stream:
        result = Stream()
        start = last = time.perf_counter()
        async for event in self._client.stream(self._tokens(self._prompt_tokens), sampling=sampling, user_id=user):
            if not isinstance(event, Delta) or not event.token_ids:
                continue
            now, count = time.perf_counter(), len(event.token_ids)
            if result.num_tokens:  # what comes in one message shares the time since the last
                result.gaps += [(now - last) / count] * count
            else:  # what comes with the first token came with it
                result.first_token = now - start
                result.gaps += [0.0] * (count - 1)
            result.num_tokens += count
            last = now
        return result

    def _tokens(self, count: int) -> list[int]:
        return [self._random.randrange(FIRST_ORDINARY_TOKEN, self._vocab_size) for _ in range(count)]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at PERCENTILES; nothing for nothing."""
    if len(seconds) < 2:
        return {f"p{p}": 1e3 * second for second in seconds for p in PERCENTILES}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"p{p}": 1e3 * cuts[p - 1] for p in PERCENTILES}
