"""Who calls: the caller of the call under way, and the owners of the memories it names."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from hope_serve.api import Owner
from hope_serve.errors import PermissionDenied
from hope_serve.identity import Caller, Scope


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One call: who makes it, and whose memories it named so far.

    takes_admin: whether what needs the scope admin is answered at the address that was called.
    """

    caller: Caller
    takes_admin: bool = True
    owners: list[Owner] = field(default_factory=list)


VISIT: ContextVar[Visit] = ContextVar("visit")
"""Set by the door before a handler runs. Every call has a task, and with it a context, of its own."""


def current_caller() -> Caller:
    """Who makes the call under way."""
    return VISIT.get().caller


def require_admin() -> None:
    """Raises PermissionDenied without the scope, or at an address that does not answer what needs it."""
    visit = VISIT.get()
    visit.caller.require(Scope.ADMIN)
    if not visit.takes_admin:
        raise PermissionDenied(
            "this server answers what needs the scope admin at an address of its own (server.admin_listen); call that",
            reason="ADMIN_ADDRESS",
        )


def owner_of(user_id: str) -> Owner:
    """The owner that ``user_id`` names in the caller's tenant. Raises InvalidRequest, also for an empty one."""
    visit = VISIT.get()
    owner = visit.caller.owner(user_id)
    visit.owners.append(owner)
    return owner


def reader_of(user_id: str) -> Owner | None:
    """As ``owner_of``; None for the plain model."""
    return owner_of(user_id) if user_id else None
