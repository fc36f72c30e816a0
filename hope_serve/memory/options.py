"""How a store is to behave, apart from where it is and what seals it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hope_serve.memory.audit import AuditLog, NoAudit
from hope_serve.memory.quotas import Quotas

KEEP_VERSIONS = 3


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Settings that every store has.

    Args:
        keep_versions: how many versions keep their content for rollback, the current one included.
        quotas: how much a user and a tenant may keep.
        audit: where changes are put on record.
        clock: Unix seconds; None is this machine's clock, set right by the store's.

    Raises:
        ValueError: a setting is out of range.
    """

    keep_versions: int = KEEP_VERSIONS
    quotas: Quotas = field(default_factory=Quotas)
    audit: AuditLog = field(default_factory=NoAudit)
    clock: Callable[[], float] | None = None

    def __post_init__(self) -> None:
        if self.keep_versions < 1:
            raise ValueError(f"keep_versions is {self.keep_versions}; at least the current version must be kept")

    def now(self) -> float:
        """Unix seconds."""
        return (self.clock or time.time)()
