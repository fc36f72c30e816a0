"""Erases a memory: a tombstone, no data key, no bytes; and a receipt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hope_serve.api import ErasureReceipt, Owner
from hope_serve.errors import CorruptMemory, NotFound
from hope_serve.memory.backend import Backend, Erased, HeadRow, Record
from hope_serve.memory.owners import Owners
from hope_serve.memory.seal import Binding


class Eraser:
    """The erasing side of a sealed store. Works on damaged memories too: it opens nothing.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, backend: Backend, owners: Owners, *, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._owners = owners
        self._clock = clock

    async def erase(self, owner: Owner) -> ErasureReceipt:
        """See ``MemoryStore.erase``."""
        binding = self._owners.binding(owner)
        while True:
            try:
                record = await self._backend.read(binding.index)
            except CorruptMemory:
                return await self._erase_headless(binding)
            if _nothing_since(record):
                if record.erased is None:
                    raise NotFound("this user has no memory and no session to erase")
                return self._receipt(binding, record.head, record.erased)
            tombstone = self._tombstone(binding, max(record.head.version, *record.versions, 0))
            if erased := await self._backend.erase(binding.index, record.head.version, tombstone):
                return self._receipt(binding, tombstone, erased)

    async def _erase_headless(self, binding: Binding) -> ErasureReceipt:
        """Nothing can be committed on a damaged head, so nothing can come between."""
        abouts = await self._backend.abouts(binding.index)
        tombstone = self._tombstone(binding, max((version for version, _ in abouts), default=0))
        erased = await self._backend.erase(binding.index, None, tombstone)
        assert erased is not None
        return self._receipt(binding, tombstone, erased)

    def _tombstone(self, binding: Binding, newest: int) -> HeadRow:
        version = newest + 1
        head = HeadRow(version=version, tomb=version, updated_at=self._clock())
        return dataclasses.replace(head, seal=self._owners.index.seal_head(binding, head))

    def _receipt(self, binding: Binding, tombstone: HeadRow, erased: Erased) -> ErasureReceipt:
        return ErasureReceipt(
            receipt_id=self._owners.index.receipt(binding, tombstone.version, tombstone.updated_at),
            versions_removed=erased.versions,
            sessions_removed=erased.sessions,
            erased_at=tombstone.updated_at,
        )


def _nothing_since(record: Record) -> bool:
    """Whether the owner was never here, or has written neither memory nor session since the last erasure."""
    return not record.data_key and not record.versions and record.head.version == record.head.tomb
