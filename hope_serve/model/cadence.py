"""When CMS levels fire: on tokens, never on calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Where ``tokens`` learned so far stand in every level's chunk: levels fire on tokens, never on calls.

    chunk_sizes: of the online levels, fast to slow.
    """

    chunk_sizes: tuple[int, ...]
    tokens: int = 0

    def room(self) -> int:
        """Tokens until the fastest level fires; a segment never reaches past them."""
        return self.chunk_sizes[0] - self.tokens % self.chunk_sizes[0]

    def after(self, count: int) -> Self:
        """The cadence ``count`` tokens later."""
        return type(self)(chunk_sizes=self.chunk_sizes, tokens=self.tokens + count)

    def fired(self) -> tuple[bool, ...]:
        """Which levels' chunks end exactly here."""
        return tuple(self.tokens > 0 and self.tokens % size == 0 for size in self.chunk_sizes)

    def updates(self) -> tuple[int, ...]:
        """Chunks that each level has completed."""
        return tuple(self.tokens // size for size in self.chunk_sizes)
