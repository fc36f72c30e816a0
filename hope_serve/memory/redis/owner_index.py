"""The index of owners: by tenant, in order, a superset of those who have a memory."""

from __future__ import annotations

from collections.abc import Sequence

from hope_serve.memory.backend import OwnerRow, Usage
from hope_serve.memory.redis import layout
from hope_serve.memory.redis.calls import Calls, as_bytes, head_row, owner_keys


async def index_owner(calls: Calls, tenant: str, owner: str) -> None:
    """Add an owner. Repeating it is harmless."""
    await calls.confirmed(layout.TENANTS, ("ZADD", layout.TENANTS, 0, tenant))
    await calls.confirmed(key := layout.tenant_owners(tenant), ("ZADD", key, 0, owner))


async def list_owners(calls: Calls, tenant: str | None, after: str, limit: int) -> Sequence[OwnerRow]:
    """A page of one tenant's owners, or of all tenants' when None. Cursors are ``tenant:owner``."""
    found: list[OwnerRow] = []
    at_tenant, _, at_owner = after.partition(":")
    tenants = [tenant] if tenant else await _page(calls, layout.TENANTS, f"[{at_tenant}" if at_tenant else "-", -1)
    for name in tenants:
        start = f"({at_owner}" if name == at_tenant else "-"
        for owner in await _page(calls, layout.tenant_owners(name), start, limit - len(found)):
            found.append(await _row(calls, name, owner))
        if len(found) == limit:
            break
    return found


async def read_usage(calls: Calls, tenant: str) -> Usage:
    """See ``Backend.usage``."""
    owners, total = (await calls.read("usage", [layout.tenant_usage(tenant)])).values
    assert isinstance(owners, int)
    return Usage(owners=owners, num_bytes=int(as_bytes(total)))


async def count_usage(calls: Calls, tenant: str, owner: str, num_bytes: int) -> None:
    """See ``Backend.count_usage``. It sets and never adds: repeating it is harmless."""
    await calls.write("usage_set", [layout.tenant_usage(tenant)], owner, num_bytes, wait=False)


async def _page(calls: Calls, key: str, start: str, count: int) -> list[str]:
    members = await calls.plain(key, ("ZRANGEBYLEX", key, start, "+", "LIMIT", 0, count))
    assert isinstance(members, list)
    return [as_bytes(member).decode() for member in members]


async def _row(calls: Calls, tenant: str, owner: str) -> OwnerRow:
    values = (await calls.read("describe", owner_keys(owner))).values
    return OwnerRow(
        owner=owner,
        tenant=tenant,
        name=as_bytes(values[7]),
        data_key=as_bytes(values[8]),
        head=head_row(values),
        cursor=f"{tenant}:{owner}",
    )
