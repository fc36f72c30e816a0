"""Who calls: the tenant of a call and the owner of a memory. Every caller is of one tenant until credentials exist."""

from __future__ import annotations

from hope_serve.api import Owner

DEFAULT_TENANT = "default"


def owner_of(user_id: str) -> Owner:
    """The owner that ``user_id`` names. Raises InvalidRequest, also for an empty one."""
    return Owner(tenant=DEFAULT_TENANT, user=user_id)


def reader_of(user_id: str) -> Owner | None:
    """As ``owner_of``; None for the plain model."""
    return owner_of(user_id) if user_id else None
