"""When CMS levels fire: on tokens, never on calls; and, for a model that was trained so, where a lesson ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Where ``tokens`` learned so far stand in every level's chunk: levels fire on tokens, never on calls.

    chunk_sizes: of the online levels, fast to slow.
    closes: whether a lesson's end ends the open chunks too, so that the next lesson is learned on top of it.
    skipped: places of chunks that were left empty by this.
    """

    chunk_sizes: tuple[int, ...]
    tokens: int = 0
    closes: bool = False
    skipped: int = 0

    def room(self) -> int:
        """Tokens until the fastest level fires; a segment never reaches past them."""
        return self.chunk_sizes[0] - self._place % self.chunk_sizes[0]

    def after(self, count: int) -> Self:
        """The cadence ``count`` tokens later."""
        return replace(self, tokens=self.tokens + count)

    def at_end(self) -> Self:
        """The cadence when a lesson ends here."""
        return replace(self, skipped=self.skipped + -self._place % self.chunk_sizes[-1]) if self.closes else self

    def open(self) -> tuple[bool, ...]:
        """Which levels are within a chunk."""
        return tuple(self._place % size > 0 for size in self.chunk_sizes)

    def fired(self) -> tuple[bool, ...]:
        """Which levels' chunks end exactly here."""
        return tuple(self._place > 0 and not is_open for is_open in self.open())

    def updates(self) -> tuple[int, ...]:
        """Chunks that each level has completed."""
        return tuple(self._place // size for size in self.chunk_sizes)

    @property
    def _place(self) -> int:
        return self.tokens + self.skipped
