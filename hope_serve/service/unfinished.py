"""What broken streams had learned, kept for a while in case they come back."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hope_serve.api import AdaptMetrics, AdaptOptions, LevelReport, Owner, Timings
from hope_serve.api.engine import Taught
from hope_serve.memory.store import Head

KEPT_SECONDS = 900.0
MAX_KEPT = 32


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What parts did, added up. Losses and squares are sums over targets; ``way`` is the sum of the parts' updates."""

    given: int = 0
    used: int = 0
    targets: int = 0
    nll_before: float = 0.0
    nll_after: float = 0.0
    gradient: float = 0.0
    way: float = 0.0
    clipped: bool = False
    levels: tuple[LevelReport, ...] = ()
    timings: Timings = field(default_factory=Timings)

    def plus(self, taught: Taught[Any]) -> Totals:
        """With one more part."""
        new, targets = taught.metrics, taught.metrics.tokens_given - 1
        return Totals(
            given=self.given + new.tokens_given,
            used=self.used + new.tokens_used,
            targets=self.targets + targets,
            nll_before=self.nll_before + new.nll_before * targets,
            nll_after=self.nll_after + new.nll_after * targets,
            gradient=math.hypot(self.gradient, new.surprise * targets),
            way=self.way + new.update_norm,
            clipped=self.clipped or new.clipped,
            levels=new.levels,
            timings=_sum(self.timings, taught.timings),
        )

    def metrics(self, update_norm: float) -> AdaptMetrics:
        """Of all parts together."""
        return AdaptMetrics(
            tokens_given=self.given,
            tokens_used=self.used,
            nll_before=self.nll_before / self.targets,
            nll_after=self.nll_after / self.targets,
            surprise=self.gradient / self.targets,
            update_norm=update_norm,
            clipped=self.clipped,
            levels=self.levels,
        )


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the first ``num_parts`` parts of a stream taught.

    Args:
        head: where the memory stood on which they were learned.
        options: how they were learned.
        learned: what came of it.
        digest: of the contents of these parts.
    """

    head: Head
    options: AdaptOptions
    learned: Any
    num_parts: int = 0
    digest: str = ""
    totals: Totals = field(default_factory=Totals)

    def after(self, taught: Taught[Any], digest: str) -> Progress:
        """With one more part, ``digest`` being that of all."""
        return replace(
            self,
            learned=taught.learned,
            num_parts=self.num_parts + 1,
            digest=digest,
            totals=self.totals.plus(taught),
        )

    def stands_on(self, head: Head) -> bool:
        """Whether ``head`` is still the memory on which it was learned."""
        return same_memory(self.head, head)


class Unfinished:
    """The progress of streams that have not ended, by owner and request id; the least recently learned leave first.

    Args:
        most: streams to keep.
        seconds: for how long each.
    """

    def __init__(self, *, most: int = MAX_KEPT, seconds: float = KEPT_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._kept: OrderedDict[tuple[Owner, str], tuple[Progress, asyncio.TimerHandle]] = OrderedDict()

    def owners(self) -> Iterator[Owner]:
        """Whose streams are kept."""
        return iter({owner for owner, _ in self._kept})

    def find(self, owner: Owner, request_id: str, head: Head, options: AdaptOptions) -> Progress | None:
        """What the stream had come to, if it was learned in the same way on the memory that is there now."""
        progress, _ = self._kept.get((owner, request_id), (None, None))
        fits = progress is not None and progress.stands_on(head) and progress.options == options
        return progress if fits else None

    def keep(self, owner: Owner, request_id: str, progress: Progress) -> None:
        """Keep what a stream has come to, instead of what it had come to before."""
        self.drop(owner, request_id)
        timer = asyncio.get_running_loop().call_later(self._seconds, self.drop, owner, request_id)
        self._kept[owner, request_id] = progress, timer
        if len(self._kept) > self._most:
            self.drop(*next(iter(self._kept)))

    def drop(self, owner: Owner, request_id: str) -> None:
        """The stream has ended, or nobody came back."""
        if found := self._kept.pop((owner, request_id), None):
            found[1].cancel()

    def forget(self, owner: Owner) -> None:
        """Drop every stream of an owner."""
        for key in [key for key in self._kept if key[0] == owner]:
            self.drop(*key)

    def clear(self) -> None:
        """Drop everything."""
        for key in list(self._kept):
            self.drop(*key)


def same_memory(one: Head, other: Head) -> bool:
    """Whether two looks at a memory saw the same content."""
    return (one.version, one.mark, one.exists) == (other.version, other.mark, other.exists)


def _sum(one: Timings, other: Timings) -> Timings:
    return Timings(
        queue_seconds=one.queue_seconds + other.queue_seconds,
        restore_seconds=one.restore_seconds + other.restore_seconds,
        prefill_seconds=one.prefill_seconds + other.prefill_seconds,
        decode_seconds=one.decode_seconds + other.decode_seconds,
    )
