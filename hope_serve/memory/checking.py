"""Reads a whole store and says what of it can be read."""

from __future__ import annotations

from dataclasses import dataclass

from hope_serve.errors import CorruptMemory, NotFound
from hope_serve.memory.sealed_store import SealedStore


@dataclass(frozen=True, kw_only=True)
class Checked:
    """How much was read without a fault, and the indexes of owners whose memories failed their seals."""

    memories: int
    versions: int
    damaged: tuple[str, ...]


async def check_memories(store: SealedStore) -> Checked:
    """Open every head, note, reply and chunk of every version. Conversations, which end by themselves, are left out.

    Raises:
        CorruptMemory: an owner's name failed its seal, so that nobody can say whose memory it is.
    """
    memories = versions = 0
    damaged: list[str] = []
    async for owner in store.upkeep.owners():
        try:
            async for _ in store.history.read(owner, after=0):
                versions += 1
            memories += 1
        except (CorruptMemory, NotFound):
            damaged.append(store.owner_key(owner))
    return Checked(memories=memories, versions=versions, damaged=tuple(damaged))
