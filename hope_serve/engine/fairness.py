"""Whose turn it is: tenants share by weight, users of a tenant share alike, a user's own work goes by priority and age.

Start-time fair queueing, twice over (Goyal, Vin, Cheng, 1996): everybody has a virtual time, which work moves on by its
cost over the weight, and whoever is least far on goes next. Who comes back after a rest starts where the others are:
resting earns nothing. Work that turns out dearer than it was taken for is charged afterwards.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
C = TypeVar("C")


@dataclass
class _Share(Generic[C]):
    """One child of a level: its virtual time, and what it shares out itself."""

    name: str
    content: C
    weight: float = 1.0
    time: float = 0.0
    is_queued: bool = False
    is_resting: bool = False


class _Level(Generic[C]):
    """Children that share by weight. Every operation takes O(log n) of the children, amortised."""

    def __init__(self) -> None:
        self._shares: dict[str, _Share[C]] = {}
        self._queue: list[tuple[float, int, _Share[C]]] = []
        self._resting: list[tuple[float, int, _Share[C]]] = []
        self._numbers = count()
        self._now = 0.0
        self._furthest = 0.0

    @property
    def has_work(self) -> bool:
        """Whether any child may have some."""
        return bool(self._queue)

    def get(self, name: str) -> _Share[C] | None:
        """A child that has work, or that has had more than its share."""
        return self._shares.get(name)

    def join(self, name: str, content: C) -> _Share[C]:
        """A new child, without work."""
        share = self._shares[name] = _Share(name=name, content=content, time=self._now)
        self._lay_down(share)
        return share

    def wake(self, share: _Share[C]) -> None:
        """A child has work now: it starts where the others are."""
        if not share.is_queued:
            share.is_queued = True
            share.time = max(share.time, self._now)
            heapq.heappush(self._queue, (share.time, next(self._numbers), share))

    def first(self) -> _Share[C]:
        """Whose turn it is."""
        while (entry := self._queue[0])[0] < entry[2].time:  # it was charged since
            heapq.heapreplace(self._queue, (entry[2].time, next(self._numbers), entry[2]))
        return self._queue[0][2]

    def served(self, share: _Share[C], cost: float) -> None:
        """The first child's turn was used."""
        self._now = max(self._now, share.time)
        self.charge(share, cost)
        self._furthest = max(self._furthest, self._now + cost / share.weight)

    def charge(self, share: _Share[C], cost: float) -> None:
        """Move a child on."""
        share.time += cost / share.weight

    def rest(self) -> None:
        """The first child has no more work; it is remembered while it is ahead of the others."""
        _, _, share = heapq.heappop(self._queue)
        share.is_queued = False
        self._lay_down(share)
        if not self._queue:  # nobody is left to catch up with anybody
            self._now = self._furthest
        self._forget()

    def _lay_down(self, share: _Share[C]) -> None:
        if not share.is_resting:
            share.is_resting = True
            heapq.heappush(self._resting, (share.time, next(self._numbers), share))

    def _forget(self) -> None:
        """Let go of those whom the others have caught up with. A child that woke stays in the heap until its turn."""
        while self._resting and self._resting[0][0] <= self._now:
            _, _, share = heapq.heappop(self._resting)
            share.is_resting = False
            if not share.is_queued and share.time <= self._now:
                del self._shares[share.name]
            elif not share.is_queued:
                self._lay_down(share)

    def __len__(self) -> int:
        return len(self._shares)


@dataclass
class _User(Generic[T]):
    """A user's waiting items, best first: ``(-priority, number, item)``."""

    waiting: list[tuple[int, int, T]] = field(default_factory=list)


@dataclass
class _Tenant(Generic[T]):
    users: _Level[_User[T]] = field(default_factory=_Level)


@dataclass(frozen=True)
class _Place:
    tenant: str
    user: str
    cost: float
    number: int


class FairQueue(Generic[T]):
    """Items of many users of many tenants, in the order that is fair to all of them.

    Not safe for several threads at once.
    """

    def __init__(self) -> None:
        self._tenants: _Level[_Tenant[T]] = _Level()
        self._places: dict[T, _Place] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: object) -> bool:
        return item in self._places

    def __iter__(self) -> Iterator[T]:
        """Everything that waits, in the order of arrival."""
        return iter(self._places)

    def push(self, item: T, *, tenant: str, user: str, cost: float, priority: int = 0, weight: float = 1.0) -> None:
        """Let an item wait.

        Args:
            item: not in the queue yet.
            cost: of serving it, in whatever unit all costs have; more than 0.
            priority: among this user's own items; higher goes first.
            weight: of the tenant, from now on; twice the weight is twice the share.

        Raises:
            ValueError: it waits already, or a number is not positive and finite.
        """
        if item in self._places:
            raise ValueError(f"{item!r} waits already")
        if not (0 < cost < float("inf") and 0 < weight < float("inf")):
            raise ValueError(f"cost is {cost} and weight is {weight}; both must be positive and finite")
        place = _Place(tenant=tenant, user=user, cost=cost, number=next(self._numbers))
        owner = self._tenants.get(tenant) or self._tenants.join(tenant, _Tenant())
        owner.weight = weight
        users = owner.content.users
        member = users.get(user) or users.join(user, _User())
        heapq.heappush(member.content.waiting, (-priority, place.number, item))
        self._places[item] = place
        users.wake(member)
        self._tenants.wake(owner)

    def peek(self) -> T | None:
        """Whose turn it is, or None when nobody waits."""
        found = self._first()
        return found[2] if found else None

    def pop(self) -> T:
        """Take the item whose turn it is.

        Raises:
            IndexError: nobody waits.
        """
        found = self._first()
        if found is None:
            raise IndexError("nobody waits")
        tenant, member, item = found
        cost = self._places.pop(item).cost
        heapq.heappop(member.content.waiting)
        users = tenant.content.users
        users.served(member, cost)
        self._tenants.served(tenant, cost)
        if not member.content.waiting:
            users.rest()
            if not users.has_work:
                self._tenants.rest()
        return item

    def remove(self, item: T) -> None:
        """Take an item out of turn, for nothing; one that does not wait is left alone."""
        self._places.pop(item, None)

    def charge(self, *, tenant: str, user: str, cost: float) -> None:
        """Cost that shows after an item was served, such as the tokens it went on to write.

        Whoever has no work waiting is charged too: the next item starts that much later.

        Raises:
            ValueError: the cost is negative or not finite.
        """
        if not 0 <= cost < float("inf"):
            raise ValueError(f"cost is {cost}; it must be finite and not negative")
        owner = self._tenants.get(tenant) or self._tenants.join(tenant, _Tenant())
        self._tenants.charge(owner, cost)
        users = owner.content.users
        users.charge(users.get(user) or users.join(user, _User()), cost)

    def _first(self) -> tuple[_Share[_Tenant[T]], _Share[_User[T]], T] | None:
        """Also lets go of items that were removed, and of whoever has none left."""
        while self._tenants.has_work:
            tenant = self._tenants.first()
            users = tenant.content.users
            while users.has_work:
                member = users.first()
                waiting = member.content.waiting
                while waiting and self._is_gone(waiting[0]):
                    heapq.heappop(waiting)
                if waiting:
                    return tenant, member, waiting[0][2]
                users.rest()
            self._tenants.rest()
        return None

    def _is_gone(self, entry: tuple[int, int, T]) -> bool:
        place = self._places.get(entry[2])
        return place is None or place.number != entry[1]  # removed, and perhaps pushed again since
