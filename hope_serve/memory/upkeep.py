"""What a job does to a whole store now and then: wrap keys anew, erase what lies idle, count usage again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from hope_serve.api import Owner
from hope_serve.errors import CorruptMemory
from hope_serve.memory.audit import Action, AuditEvent
from hope_serve.memory.backend import Backend, OwnerRow
from hope_serve.memory.expiry import Expired, Expiry, Terms
from hope_serve.memory.options import StoreOptions
from hope_serve.memory.owners import Owners
from hope_serve.memory.reading import exists

_PAGE = 100
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Upkept:
    """What a job did. ``damaged``: the indexes of owners it could not treat: their names or keys failed their seals."""

    seen: int
    changed: int
    damaged: tuple[str, ...] = ()


class Upkeep:
    """Jobs over every owner of a sealed store. They may run while it serves, and be repeated at will."""

    def __init__(self, backend: Backend, owners: Owners, expiry: Expiry, options: StoreOptions) -> None:
        self._backend = backend
        self._owners = owners
        self._expiry = expiry
        self._options = options

    async def rotate_keys(self) -> Upkept:
        """Wrap every data key, and the store's own secret, with the current keys; the bytes they seal stay as they are.

        Once nothing is left to change, the former keys may be destroyed.
        """
        await self._owners.rewrap_secret()
        seen, changed, damaged = 0, 0, []
        async for row in self._rows():
            seen += 1
            try:
                changed += await self._rewrap(row)
            except CorruptMemory:
                damaged.append(row.owner)
        return Upkept(seen=seen, changed=changed, damaged=tuple(damaged))

    async def expire(self, terms: Terms) -> Expired:
        """Put memories that lie idle in quarantine, and erase those that were there for the whole grace.

        Raises:
            FailedPrecondition: see ``Expiry.begin``.
        """
        going_over = await self._expiry.begin(terms)
        async for page in self._pages():
            await going_over.page(page)
        return going_over.done()

    async def recount(self) -> Upkept:
        """Set every owner's usage to what the head says; after an interrupted commit it may be behind."""
        seen = 0
        async for row in self._rows():
            seen += 1
            await self._backend.count_usage(row.tenant, row.owner, row.head.num_bytes if exists(row.head) else 0)
        return Upkept(seen=seen, changed=seen)

    async def owners(self) -> AsyncIterator[Owner]:
        """Everybody who has a memory. Raises CorruptMemory at a name that failed its seal."""
        async for row in self._rows():
            if exists(row.head):
                yield self._name(row)

    async def _rewrap(self, row: OwnerRow) -> bool:
        if not row.data_key:
            return False
        binding = self._owners.binding(self._name(row))
        wrapped = await self._owners.rewrap(binding, row.data_key)
        if wrapped is None or not await self._backend.rekey(row.owner, row.data_key, wrapped):
            return False
        self._options.audit.record(
            AuditEvent(time=self._options.now(), action=Action.ROTATE_KEY, owner=row.owner, tenant=row.tenant)
        )
        return True

    def _name(self, row: OwnerRow) -> Owner:
        return self._owners.index.open_name(row.name, row.owner)

    async def _rows(self) -> AsyncIterator[OwnerRow]:
        async for page in self._pages():
            for row in page:
                yield row

    async def _pages(self) -> AsyncIterator[Sequence[OwnerRow]]:
        cursor = ""
        while page := await self._backend.owners(None, cursor, _PAGE):
            yield page
            cursor = page[-1].cursor
