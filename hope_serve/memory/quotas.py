"""How much a user and a tenant may keep."""

from __future__ import annotations

from dataclasses import dataclass

from hope_serve.errors import Exhausted
from hope_serve.memory.backend import Backend
from hope_serve.memory.index import Index


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """Limits on bytes of current versions; 0 is no limit. A tenant's may be passed by commits that are under way."""

    user_bytes: int = 0
    tenant_bytes: int = 0
    tenant_users: int = 0

    def __post_init__(self) -> None:
        for name in ("user_bytes", "tenant_bytes", "tenant_users"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"quota {name} is {value}; use 0 for no limit")


class QuotaKeeper:
    """Refuses commits that pass a quota, and keeps count of what tenants use."""

    def __init__(self, backend: Backend, quotas: Quotas) -> None:
        self._backend = backend
        self._quotas = quotas

    async def check(self, index: Index, tenant: str, *, before: int | None, after: int) -> None:
        """Refuse a memory that grows past a quota.

        Args:
            before: bytes of the base version; None for a new user.
            after: bytes of the version to be committed.

        Raises:
            Exhausted: naming quota, size and limit.
        """
        limits = self._quotas
        if limits.user_bytes and after > limits.user_bytes:
            raise _refused("user", f"this memory would take {after} bytes", limits.user_bytes)
        grows = before is None or after > before
        if not grows or not (limits.tenant_bytes or limits.tenant_users):
            return
        usage = await self._backend.usage(index.tenant(tenant))
        if limits.tenant_bytes and usage.num_bytes + after - (before or 0) > limits.tenant_bytes:
            raise _refused("tenant", f"its memories take {usage.num_bytes} bytes and would grow", limits.tenant_bytes)
        if before is None and limits.tenant_users and usage.owners >= limits.tenant_users:
            raise _refused("tenant", f"{usage.owners} of its users have memories", limits.tenant_users)

    async def count(self, index: Index, tenant: str, owner: str, *, before: int | None, after: int) -> None:
        """Keep count after a commit or an erasure (``after`` 0)."""
        if before != after:
            await self._backend.count_usage(index.tenant(tenant), owner, after)


def _refused(whose: str, message: str, limit: int) -> Exhausted:
    return Exhausted(
        f"the {whose}'s quota is reached: {message}; the limit is {limit}. Erase memories, or have it raised",
        retry_after=60.0,
        reason="QUOTA",
    )
