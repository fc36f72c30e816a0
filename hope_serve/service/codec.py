"""What an engine's memories and conversations look like to the store: an engine brings one of these with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hope_serve.api import LevelReport
from hope_serve.memory.snapshot import Counter, Snapshot


class Codec(Protocol):
    """Snapshots of memories and conversations, and what can be said of them. Everything happens on the host."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of one memory in the store, at most."""
        ...

    @property
    def warm_bytes(self) -> int:
        """Bytes of one memory that is at hand."""
        ...

    def blank(self) -> Any:
        """A memory that has learned nothing."""
        ...

    def of_memory(
        self, learned: Any, base: Any | None, counters: Mapping[str, Counter]
    ) -> tuple[Snapshot, frozenset[str]]:
        """The snapshot to commit over ``base``, and the names of the tensors that stayed as they are."""
        ...

    def memory(self, snapshot: Snapshot) -> Any:
        """The memory of a stored snapshot.

        Raises:
            FailedPrecondition: the snapshot's layout is newer than this release.
        """
        ...

    def check(self, snapshot: Snapshot) -> None:
        """Refuse a memory from elsewhere that this model could not run.

        Raises:
            FailedPrecondition: naming what does not fit.
        """
        ...

    def levels(self, learned: Any) -> tuple[LevelReport, ...]:
        """Updates and drift of every online level."""
        ...

    def updates(self, learned: Any, base: Any | None) -> Mapping[int, int]:
        """Updates of each online level since ``base``, by the level's number in the model."""
        ...

    def distance(self, learned: Any, base: Any | None) -> float:
        """Norm of the change that made ``learned`` of ``base``; None is a memory that has learned nothing."""
        ...

    def of_session(self, state: Any, counters: Mapping[str, Counter]) -> Snapshot:
        """A conversation's state."""
        ...

    def session(self, snapshot: Snapshot) -> Any:
        """The state of a stored conversation.

        Raises:
            FailedPrecondition: the snapshot's layout is newer than this release.
        """
        ...
