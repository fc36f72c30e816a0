"""Rates that are kept over time: what was used is paid for afterwards, and nobody begins while in debt."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """Fills at a rate, up to a bound; payments may take it below empty, and then it has to fill first.

    Args:
        rate: a second; 0 is no limit.
        seconds: of the rate that fit; so much may be used at once after a rest.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._most = rate * seconds
        self._level = self._most
        self._clock = clock
        self._at = clock()

    def wait(self) -> float:
        """Seconds until something is in it; 0 when that is so now."""
        if not self._rate:
            return 0.0
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level > 0 else max(-self._level / self._rate, 1e-3)

    def pay(self, amount: float) -> None:
        """Take an amount out, be it there or not."""
        self._level -= amount

    @property
    def is_full(self) -> bool:
        """Whether nothing was used lately."""
        return self.wait() == 0.0 and self._level >= self._most
