"""Erases a memory: a tombstone, no data key, no bytes; and a receipt."""

from __future__ import annotations

import dataclasses
import logging
import os

from hope_serve.api import ErasureReceipt, Owner
from hope_serve.errors import CorruptMemory, HopeError, NotFound
from hope_serve.memory.audit import Action, AuditEvent
from hope_serve.memory.backend import Backend, Erased, HeadRow, Record
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.owners import Owners
from hope_serve.memory.promise import Promise
from hope_serve.memory.reading import exists
from hope_serve.memory.seal import Binding

_log = logging.getLogger(__name__)


class Eraser:
    """The erasing side of a sealed store. Works on damaged memories too: it opens nothing."""

    def __init__(self, backend: Backend, owners: Owners, options: StoreOptions, promise: Promise) -> None:
        self._backend = backend
        self._owners = owners
        self._options = options
        self._promise = promise

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
            if receipt := await self._erase(binding, record, Action.ERASE):
                return receipt

    async def erase_idle(self, owner: Owner, *, before: float) -> ErasureReceipt | None:
        """Erase a memory that was last changed earlier than ``before``; None when it was not, or is no more."""
        self._promise.require()
        binding = self._owners.binding(owner)
        record = await self._backend.read(binding.index)
        if not exists(record.head) or record.head.updated_at >= before:
            return None
        return await self._erase(binding, record, Action.EXPIRE)

    async def _erase(self, binding: Binding, record: Record, action: Action) -> ErasureReceipt | None:
        tombstone = self._tombstone(binding, max(record.head.version, *record.versions, 0))
        erased = await self._backend.erase(binding.index, record.head.version, tombstone)
        return await self._finish(binding, tombstone, erased, action) if erased else None

    async def _erase_headless(self, binding: Binding) -> ErasureReceipt:
        """Nothing can be committed on a damaged head, so nothing can come between."""
        abouts = await self._backend.abouts(binding.index)
        tombstone = self._tombstone(binding, max((version for version, _ in abouts), default=0))
        erased = await self._backend.erase(binding.index, None, tombstone)
        assert erased is not None
        return await self._finish(binding, tombstone, erased, Action.ERASE)

    async def _finish(self, binding: Binding, tombstone: HeadRow, erased: Erased, action: Action) -> ErasureReceipt:
        tenant = self._owners.index.tenant(binding.tenant)
        try:
            await self._backend.count_usage(tenant, binding.index, 0)
        except HopeError as error:
            _log.warning("usage of a tenant is not counted until the next change or recount: %s", error)
        self._options.audit.record(
            AuditEvent(
                time=tombstone.updated_at,
                action=action,
                owner=binding.index,
                tenant=tenant,
                version=tombstone.version,
            )
        )
        return self._receipt(binding, tombstone, erased)

    def _tombstone(self, binding: Binding, newest: int) -> HeadRow:
        version = newest + 1
        head = HeadRow(version=version, mark=os.urandom(8).hex(), tomb=version, updated_at=self._options.now())
        return dataclasses.replace(head, seal=self._owners.index.seal_head(binding, head))

    def _receipt(self, binding: Binding, tombstone: HeadRow, erased: Erased) -> ErasureReceipt:
        """Erasing is done at once even by a store that breaks its promise; only the word on it has to wait."""
        self._promise.require()
        return ErasureReceipt(
            receipt_id=self._owners.index.receipt(binding, tombstone.version, tombstone.updated_at),
            versions_removed=erased.versions,
            sessions_removed=erased.sessions,
            erased_at=tombstone.updated_at,
        )


def _nothing_since(record: Record) -> bool:
    """Whether the owner was never here, or has written neither memory nor session since the last erasure."""
    return not record.data_key and not record.versions and record.head.version == record.head.tomb
