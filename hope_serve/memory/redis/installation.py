"""The store's own key when none is configured: kept in the store, it finds damage and mix-ups, not a thief."""

from __future__ import annotations

from hope_serve.memory.keys import TenantKeys, new_key, single_key
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.calls import Calls
from hope_serve.memory.redis.facts import claim_once


class InstallationKeys:
    """A ``KeyRing`` around a key that every pod reads from the store."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._ring: TenantKeys | None = None

    @property
    def encrypts(self) -> bool:
        """Never: whoever reads the store reads the key."""
        return False

    async def wrap(self, tenant: str, key: bytes, binding: bytes) -> bytes:
        """See ``KeyRing.wrap``."""
        return await (await self._held()).wrap(tenant, key, binding)

    async def unwrap(self, tenant: str, wrapped: bytes, binding: bytes) -> bytes:
        """See ``KeyRing.unwrap``."""
        return await (await self._held()).unwrap(tenant, wrapped, binding)

    def is_current(self, tenant: str, wrapped: bytes) -> bool:  # noqa: ARG002
        """There is only one."""
        return True

    async def _held(self) -> TenantKeys:
        if self._ring is None:
            self._ring = single_key(await claim_once(self._calls, layout.INSTALLATION, new_key()), encrypts=False)
        return self._ring
