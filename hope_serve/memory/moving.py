"""Moves memories from one store to another: versions, request ids and contents as they are, under the new store's keys.

Nobody may write to the source meanwhile. A move that was broken off is taken up by running it again. Conversations stay
behind: clients begin them anew. Erased owners stay behind: nothing of them is left but a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from hope_serve.api import Owner
from hope_serve.errors import VersionConflict
from hope_serve.memory.sealed_store import SealedStore


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How many memories were moved, and how many had been there already."""

    memories: int
    present: int


async def copy_memories(source: SealedStore, target: SealedStore) -> Moved:
    """Copy every memory of the source into the target.

    Raises:
        VersionConflict: the target holds another memory of an owner.
        CorruptMemory: a memory of the source is damaged; those before it have been copied.
    """
    memories = present = 0
    async for owner in source.upkeep.owners():
        if await _copy(source, target, owner):
            memories += 1
        else:
            present += 1
    return Moved(memories=memories, present=present)


async def _copy(source: SealedStore, target: SealedStore, owner: Owner) -> bool:
    """Copy one memory; False when it is there already."""
    there = await target.head(owner)
    last = await _same_version(source, target, owner, there.version) if there.exists else 0
    copied = False
    async for chapter in source.history.read(owner, after=last):
        await target.history.write(owner, chapter)
        copied = True
    return copied


async def _same_version(source: SealedStore, target: SealedStore, owner: Owner, version: int) -> int:
    """The version up to which an earlier move came. Raises VersionConflict when it was no move that wrote it."""
    mine = {report.version: report for report in await source.versions(owner)}.get(version)
    theirs = {report.version: report for report in await target.versions(owner)}.get(version)
    if mine is None or theirs is None or (mine.request_id, mine.created_at) != (theirs.request_id, theirs.created_at):
        raise VersionConflict(
            f"the target holds another memory of user {owner.user!r}, at version {version}; erase one of the two",
            head=version,
            reason="MEMORY_EXISTS",
        )
    return version
