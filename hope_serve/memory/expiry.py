"""Erases memories that lie idle, after a grace in which any change brings them back.

An erasure cannot be undone, and clocks go wrong. So a memory is first put in quarantine, where it goes on being served,
and its keys are destroyed only when it was there for the whole grace. The grace counts only while somebody watches:
a pass that comes much later than the one before it, or earlier, begins all graces anew: it may be the clock that moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from hope_serve.errors import CorruptMemory, FailedPrecondition
from hope_serve.memory.backend import Backend, HeadRow, OwnerRow
from hope_serve.memory.clock import StoreClock
from hope_serve.memory.erasing import Eraser
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.owners import Owners
from hope_serve.memory.reading import exists

MAX_SKEW_SECONDS = 300.0
"""Between a pod's clock and the store's; with more, one of them is wrong, and nobody knows which."""

WATCH = "watch"
"""The mark of the passes; those of memories are named by the owner's index, which is hex."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """When memories go.

    Args:
        idle_seconds: without a change, until the quarantine.
        grace_seconds: of the quarantine, until the keys are destroyed.
        max_gap_seconds: between two passes; a longer one is not believed to be time that somebody watched.
    """

    idle_seconds: float
    grace_seconds: float
    max_gap_seconds: float


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What a pass met and did, in numbers of memories.

    Args:
        seen: all of them.
        quarantined: in quarantine after the pass.
        erased: whose keys it destroyed.
        implausible: last changed in the future; they are left alone.
        damaged: indexes of owners it could not treat.
    """

    seen: int
    quarantined: int
    erased: int
    implausible: int
    damaged: tuple[str, ...]


class _Watch(msgspec.Struct, frozen=True, kw_only=True):
    since: float
    at: float


class _Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    mark: str
    since: float


M = TypeVar("M", _Watch, _Quarantine)


class Expiry:
    """Passes over the memories of one store. Several pods may make them side by side."""

    def __init__(self, backend: Backend, owners: Owners, eraser: Eraser, options: StoreOptions) -> None:
        self._backend = backend
        self._owners = owners
        self._eraser = eraser
        self._options = options

    async def begin(self, terms: Terms) -> Pass:
        """A pass; give it every page of owners.

        Raises:
            FailedPrecondition: the clocks of pod and store differ; nothing may be judged by either.
        """
        if isinstance(clock := self._options.clock, StoreClock):
            await _check_clock(clock)
        now = self._options.now()
        held = await self._backend.marks([WATCH])
        before = _decoded(held.get(WATCH, b""), _Watch)
        unbroken = before is not None and 0 <= now - before.at <= terms.max_gap_seconds
        since = before.since if before and unbroken else now
        await self._backend.set_mark(WATCH, msgspec.json.encode(_Watch(since=since, at=now)))
        return Pass(self._backend, self._owners, self._eraser, terms, now=now, watched_since=since)


class Pass:
    """One pass."""

    def __init__(
        self,
        backend: Backend,
        owners: Owners,
        eraser: Eraser,
        terms: Terms,
        *,
        now: float,
        watched_since: float,
    ) -> None:
        self._backend = backend
        self._owners = owners
        self._eraser = eraser
        self._terms = terms
        self._now = now
        self._watched_since = watched_since
        self._counts: Counter[str] = Counter()
        self._damaged: list[str] = []

    async def page(self, rows: Sequence[OwnerRow]) -> None:
        """Treat some owners."""
        marks = await self._backend.marks([row.owner for row in rows])
        for row in rows:
            try:
                self._counts[await self._treat(row, marks.get(row.owner, b""))] += 1
            except CorruptMemory:
                self._damaged.append(row.owner)

    def done(self) -> Expired:
        """What the pass did."""
        return Expired(
            seen=self._counts.total() + len(self._damaged),
            quarantined=self._counts["quarantined"],
            erased=self._counts["erased"],
            implausible=self._counts["implausible"],
            damaged=tuple(self._damaged),
        )

    async def _treat(self, row: OwnerRow, mark: bytes) -> str:
        idle = self._now - row.head.updated_at
        if not exists(row.head) or idle < self._terms.idle_seconds:
            if mark:
                await self._backend.set_mark(row.owner, b"")
            return "implausible" if exists(row.head) and idle < -MAX_SKEW_SECONDS else "kept"
        since = self._quarantined_since(row.head, mark)
        if since is None:
            quarantine = _Quarantine(mark=row.head.mark, since=self._now)
            await self._backend.set_mark(row.owner, msgspec.json.encode(quarantine))
            return "quarantined"
        if self._now - max(since, self._watched_since) < self._terms.grace_seconds:
            return "quarantined"
        return await self._erase(row)

    async def _erase(self, row: OwnerRow) -> str:
        owner = self._owners.index.open_name(row.name, row.owner)
        if await self._eraser.erase_idle(owner, before=self._now - self._terms.idle_seconds) is None:
            return "kept"  # changed since it was listed
        await self._backend.set_mark(row.owner, b"")
        return "erased"

    def _quarantined_since(self, head: HeadRow, mark: bytes) -> float | None:
        """None: not at all, or it was changed since, or the quarantine began in the future."""
        quarantine = _decoded(mark, _Quarantine)
        if quarantine is None or quarantine.mark != head.mark or quarantine.since > self._now:
            return None
        return quarantine.since


async def _check_clock(clock: StoreClock) -> None:
    await clock.set_right()
    if abs(clock.skew) > MAX_SKEW_SECONDS:
        raise FailedPrecondition(
            f"the store's clock and this machine's differ by {clock.skew:+.0f} s, more than {MAX_SKEW_SECONDS:.0f}; "
            "nothing is expired until both are right",
            reason="CLOCK_SKEW",
        )


def _decoded(content: bytes, kind: type[M]) -> M | None:
    try:
        return msgspec.json.decode(content, type=kind) if content else None
    except msgspec.DecodeError:
        return None  # a damaged mark is none: the worst that follows is a longer grace
