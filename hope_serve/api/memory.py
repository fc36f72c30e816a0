"""What a user's memory is like, without its tensors."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hope_serve.api.limits import check_range


class Durability(enum.Enum):
    """Where an acknowledged commit is safe."""

    VOLATILE = "volatile"
    LOCAL_FSYNC = "local_fsync"
    REPLICATED_FSYNC = "replicated_fsync"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where taught text came from; kept with the version, never the text itself."""

    id: str = ""
    uri: str = ""
    time: float = 0.0

    def __post_init__(self) -> None:
        check_range("source.id (characters)", len(self.id), 0, 256)
        check_range("source.uri (characters)", len(self.uri), 0, 2048)
        check_range("source.time", self.time, 0.0, 1e11)


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """One online level after an adaptation. drift = norm of the delta over the norm of the weights it moves."""

    level: int
    updates: int
    drift: float


@dataclass(frozen=True, kw_only=True)
class Warmed:
    """A memory that is at hand; version 0: there is none. ``was_warm``: it had been at hand before."""

    version: int
    was_warm: bool


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """One version of a user's memory."""

    version: int
    num_bytes: int
    tokens_learned: int
    levels: tuple[LevelReport, ...]
    state_digest: str
    sources: tuple[Source, ...]
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class VersionReport:
    """How a version came to be. ``kind``: adapt, rollback, fork or import."""

    version: int
    base_version: int
    created_at: float
    kind: str
    request_id: str
    source: Source
    restorable: bool
    """False once its content was pruned: it is listed, but cannot be rolled back to."""


@dataclass(frozen=True, kw_only=True)
class MemorySummary:
    """One line of a listing."""

    user: str
    version: int
    num_bytes: int
    updated_at: float


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """Proof that a memory was erased: what was removed, when, and under which receipt id."""

    receipt_id: str
    versions_removed: int
    sessions_removed: int
    erased_at: float
