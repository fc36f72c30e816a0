"""Who may begin how much: accounts of tenants, users and credentials, and what each call takes from them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from hope_serve.errors import Exhausted, InvalidRequest
from hope_serve.identity import Caller
from hope_serve.identity.limits import NO_LIMITS, Limits
from hope_serve.server.buckets import Bucket

MAX_ACCOUNTS = 65_536
RETRY_SECONDS = 1.0
"""When slots or waiting tokens are used up, nobody knows when they will be given back."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a call asks for.

    Args:
        slots: sequences it runs at a time; ``field`` is the request's field that says so.
        waiting: tokens that wait until it answers.
        reads: tokens that count as generated, paid for at once; what is written follows.
        learns: tokens that are learned.
    """

    slots: int = 1
    field: str = ""
    waiting: int = 0
    reads: int = 0
    learns: int = 0


class Account:
    """What one tenant, user or credential has taken, and may take.

    Args:
        name: of the table of limits, for errors.
        limits: 0 is none.
        burst_seconds: see ``Bucket``.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, limits: Limits, *, burst_seconds: float, clock: Callable[[], float]) -> None:
        self._name = name
        self._limits = limits
        self._slots = 0
        self._waiting = 0
        self._generated = Bucket(limits.generate_tokens_per_second, burst_seconds, clock)
        self._learned = Bucket(limits.learn_tokens_per_second, burst_seconds, clock)

    @property
    def at_rest(self) -> bool:
        """Whether it is as if it were new."""
        return not self._slots and not self._waiting and self._generated.is_full and self._learned.is_full

    def check(self, demand: Demand) -> None:
        """Raises InvalidRequest for what never fits, Exhausted for what does not fit now."""
        limits = self._limits
        if limits.slots and demand.slots > limits.slots:
            raise InvalidRequest(
                demand.field or "request",
                f"{demand.slots} at a time are more than {self._name}.slots {limits.slots} allows; ask for fewer",
            )
        if limits.slots and self._slots + demand.slots > limits.slots:
            raise self._full("slots", f"{self._slots} of {limits.slots} are taken, {demand.slots} more are asked for")
        if limits.waiting_tokens and self._waiting and self._waiting + demand.waiting > limits.waiting_tokens:
            raise self._full("waiting_tokens", f"{self._waiting} of {limits.waiting_tokens} wait already")
        if demand.reads and (seconds := self._generated.wait()):
            raise self._full(
                "generate_tokens_per_second", f"{limits.generate_tokens_per_second:g} are used up", seconds
            )
        if demand.learns and (seconds := self._learned.wait()):
            raise self._full("learn_tokens_per_second", f"{limits.learn_tokens_per_second:g} are used up", seconds)

    def seconds_to_learning(self) -> float:
        """Until something may be learned; 0 when that is so now."""
        return self._learned.wait()

    def take(self, demand: Demand) -> None:
        """Begin a call that was checked."""
        self._slots += demand.slots
        self._waiting += demand.waiting
        self._generated.pay(demand.reads)
        self._learned.pay(demand.learns)

    def give_back(self, demand: Demand, *, waiting: int) -> None:
        """End a call of which so many tokens still waited."""
        self._slots -= demand.slots
        self._waiting -= waiting

    def answered(self, waiting: int) -> None:
        """So many tokens wait no more."""
        self._waiting -= waiting

    def wrote(self, tokens: int) -> None:
        """Pay for what was generated."""
        self._generated.pay(tokens)

    def _full(self, limit: str, what: str, seconds: float = RETRY_SECONDS) -> Exhausted:
        return Exhausted(
            f"{self._name}.{limit}: {what}; try again in {seconds:.1f} s",
            retry_after=seconds,
            reason=self._name.upper(),
        )


class Meter:
    """A call that was let in: says when it answers and what it writes."""

    def __init__(self, accounts: Sequence[Account], demand: Demand) -> None:
        self._accounts = accounts
        self._demand = demand
        self._waiting = demand.waiting

    def answered(self, tokens: int = 0) -> None:
        """Something was sent, so much of it generated."""
        waiting, self._waiting = self._waiting, 0
        for account in self._accounts:
            account.answered(waiting)
            account.wrote(tokens)

    def close(self) -> None:
        """The call has ended, however."""
        for account in self._accounts:
            account.give_back(self._demand, waiting=self._waiting)
        self._waiting = 0


class Allowances:
    """Every account.

    Args:
        tenant, user: limits of each tenant, and of each user of each tenant.
        burst_seconds: see ``Bucket``.
        clock: monotonic seconds.
    """

    def __init__(
        self, tenant: Limits, user: Limits, *, burst_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tenant = tenant
        self._user = user
        self._burst = burst_seconds
        self._clock = clock
        self._accounts: OrderedDict[tuple[str, ...], Account] = OrderedDict()

    @contextmanager
    def entered(self, caller: Caller, user: str, demand: Demand, *, checked: bool = True) -> Iterator[Meter]:
        """Let a call in.

        Args:
            user: whose memory it reads or changes; "" for the plain model.
            checked: False for what was allowed before, and now only has to be paid for.

        Raises:
            InvalidRequest: it asks for more at a time than would ever be allowed.
            Exhausted: it is too much now; it says when to try again.
        """
        accounts = self._of(caller, user)
        for account in accounts if checked else ():
            account.check(demand)
        for account in accounts:
            account.take(demand)
        meter = Meter(accounts, demand)
        try:
            yield meter
        finally:
            meter.close()

    def check_learning(self, caller: Caller, user: str) -> None:
        """Raises Exhausted when nothing may be learned now."""
        for account in self._of(caller, user):
            account.check(Demand(slots=0, learns=1))

    def seconds_to_learning(self, caller: Caller, user: str) -> float:
        """Until something may be learned; 0 when that is so now."""
        return max((account.seconds_to_learning() for account in self._of(caller, user)), default=0.0)

    def check_sampling(self, caller: Caller, *, max_tokens: int, priority: int) -> None:
        """Raises InvalidRequest for what the caller may not ask for, naming the limit."""
        for name, limits in self._limits(caller):
            if limits.max_tokens and max_tokens > limits.max_tokens:
                raise InvalidRequest(
                    "sampling.max_tokens",
                    f"{max_tokens} is more than {name}.max_tokens {limits.max_tokens} allows; ask for less",
                )
            if priority > limits.max_priority:
                raise InvalidRequest(
                    "priority",
                    f"{priority} is more than {name}.max_priority {limits.max_priority} allows; ask for less",
                )

    def _limits(self, caller: Caller) -> tuple[tuple[str, Limits], ...]:
        return ("tenant_limits", self._tenant), ("user_limits", self._user), ("key_limits", caller.limits)

    def _of(self, caller: Caller, user: str) -> list[Account]:
        """One that has no user has nothing of a user's limits to keep to, and shares its tenant's."""
        tenant, users, key = self._limits(caller)
        places = [(("tenant", caller.tenant), tenant), (("key", caller.tenant, caller.name), key)]
        if user:
            places.append((("user", caller.tenant, user), users))
        return [self._account(place, *named) for place, named in places if named[1] != NO_LIMITS]

    def _account(self, place: tuple[str, ...], name: str, limits: Limits) -> Account:
        account = self._accounts.get(place)
        if account is None:
            account = Account(name, limits, burst_seconds=self._burst, clock=self._clock)
            self._accounts[place] = account
            self._forget()
        self._accounts.move_to_end(place)
        return account

    def _forget(self) -> None:
        """Of too many accounts, those not used for longest that are at rest; two looks for each new one."""
        for place in list(islice(self._accounts, 2)) if len(self._accounts) > MAX_ACCOUNTS else ():
            if self._accounts[place].at_rest:
                del self._accounts[place]
            else:
                self._accounts.move_to_end(place)
