"""What clients saw of a store, and the five rules it must obey.

1. Unique versions: no two requests of an owner were given the same version, and versions are consecutive.
2. Exactly once: every acknowledged request is in the memory once, at the version it was told; none is there twice.
3. Real-time order: a request sent after another was acknowledged has the higher version.
4. Fresh reads: a read holds every request acknowledged before it began (or, with ``min_version``, at least that
   version), and its content is the one that version had.
5. Nothing unsent: whatever is in a memory was sent, with that payload.
"""

import bisect
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sent:
    """A request on its way: once for its id and payload, at the time of the first try."""

    owner: str
    request: str
    payload: str
    time: float


@dataclass(frozen=True)
class Acknowledged:
    """A request that was told its version."""

    owner: str
    request: str
    payload: str
    version: int
    time: float


@dataclass(frozen=True)
class Read:
    """A memory as it was read. ``applied``: (request, payload) in order; None when the content was not looked at."""

    owner: str
    version: int
    applied: tuple | None
    began: float
    min_version: int = 0


@dataclass
class History:
    """Events of one run, and the memories as they were at its end: owner to (request, payload) in order of versions.

    ``reads_are_current``: a read must hold all that was acknowledged before it, not only its ``min_version``.
    ``versions_can_be_lost``: a version that was read before it was acknowledged may vanish in a failover.
    """

    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    final: dict[str, tuple] = field(default_factory=dict)
    reads_are_current: bool = True
    versions_can_be_lost: bool = False


def violations(history):
    """Every way in which the history breaks a rule, as text; empty when it obeys them all."""
    rules = (_unique_versions, _exactly_once, _real_time_order, _fresh_reads, _nothing_unsent)
    return [broken for rule in rules for broken in rule(history)]


def _unique_versions(history):
    given = defaultdict(set)
    for ack in history.acknowledged:
        given[ack.owner, ack.version].add((ack.request, ack.payload))
    for (owner, version), requests in given.items():
        if len(requests) > 1:
            yield f"rule 1: version {version} of {owner} was given to {sorted(requests)}"
    versions = defaultdict(set)
    for ack in history.acknowledged:
        versions[ack.owner, ack.request].add(ack.version)
    for (owner, request), told in versions.items():
        if len(told) > 1:
            yield f"rule 1: {request} of {owner} was told versions {sorted(told)}"


def _exactly_once(history):
    for owner, applied in history.final.items():
        counts = Counter(request for request, _ in applied)
        for request, count in counts.items():
            if count > 1:
                yield f"rule 2: {request} is {count} times in the memory of {owner}"
    for ack in history.acknowledged:
        applied = history.final.get(ack.owner, ())
        there = applied[ack.version - 1] if ack.version <= len(applied) else None
        if there != (ack.request, ack.payload):
            yield f"rule 2: {ack.owner} was acknowledged {ack.request} as version {ack.version}, which holds {there}"


def _real_time_order(history):
    sent = {(event.owner, event.request): event.time for event in history.sent}
    by_owner = defaultdict(list)
    for ack in history.acknowledged:
        by_owner[ack.owner].append(ack)
    for owner, acks in by_owner.items():
        acks.sort(key=lambda ack: ack.time)
        times = [ack.time for ack in acks]
        highest = list(itertools.accumulate((ack.version for ack in acks), max))
        for ack in acks:
            before = bisect.bisect_left(times, sent.get((owner, ack.request), ack.time))
            if before and highest[before - 1] >= ack.version and ack.version != _version_of(acks[:before], ack.request):
                yield f"rule 3: {ack.request} of {owner} is version {ack.version}, sent after {highest[before - 1]}"


def _version_of(acks, request):
    return next((ack.version for ack in acks if ack.request == request), None)


def _fresh_reads(history):
    acks = defaultdict(list)
    for ack in sorted(history.acknowledged, key=lambda ack: ack.time):
        acks[ack.owner].append(ack)
    for read in history.reads:
        expected = read.min_version
        if history.reads_are_current:
            expected = max([expected, *(ack.version for ack in acks[read.owner] if ack.time < read.began)])
        if read.version < expected:
            yield f"rule 4: {read.owner} was read at version {read.version}, after {expected} had been acknowledged"
        lasting = min(read.version, expected) if history.versions_can_be_lost else read.version
        if read.applied is not None and read.applied[:lasting] != history.final.get(read.owner, ())[:lasting]:
            yield f"rule 4: version {read.version} of {read.owner} was read with another content than it has"


def _nothing_unsent(history):
    sent = {(event.owner, event.request, event.payload) for event in history.sent}
    for owner, applied in history.final.items():
        for request, payload in applied:
            if (owner, request, payload) not in sent:
                yield f"rule 5: the memory of {owner} holds {request} with payload {payload}, which nobody sent"
