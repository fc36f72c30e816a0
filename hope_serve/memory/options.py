"""How a store is to behave, apart from where it is and what seals it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

KEEP_VERSIONS = 3


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Settings that every store has.

    Args:
        keep_versions: how many versions keep their content for rollback, the current one included.
        clock: Unix seconds.

    Raises:
        ValueError: a setting is out of range.
    """

    keep_versions: int = KEEP_VERSIONS
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if self.keep_versions < 1:
            raise ValueError(f"keep_versions is {self.keep_versions}; at least the current version must be kept")
