"""The caller of one call: a tenant, what it may, and perhaps the one user it speaks for."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from hope_serve.api import MAX_USER_ID, Owner, check_name
from hope_serve.errors import PermissionDenied
from hope_serve.identity.limits import NO_LIMITS, Limits

DEFAULT_TENANT = "default"
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Scope(enum.Enum):
    """What a credential may. None of them includes another.

    GENERATE: generate, score, sessions; read with anybody's memory of the tenant.
    ADAPT: teach memories.
    MEMORY_READ: look at memories, judge them, export them under a passphrase.
    MEMORY_WRITE: roll back, fork, import, erase.
    ADMIN: list the tenant's users, export without a passphrase.
    """

    GENERATE = "generate"
    ADAPT = "adapt"
    MEMORY_READ = "memory:read"
    MEMORY_WRITE = "memory:write"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a credential speaks for.

    Args:
        tenant: 1 to 64 letters, digits, dots, dashes, underscores.
        scopes: what it may.
        user: the only user whose memory it may name; "" for any of the tenant.
        name: of the credential, for logs; no secret.
        limits: of the credential, beside those of its tenant and users.

    Raises:
        ValueError: a tenant or user that is none.
    """

    tenant: str
    scopes: frozenset[Scope]
    user: str = ""
    name: str = ""
    limits: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        if not TENANT.fullmatch(self.tenant):
            raise ValueError(
                f"tenant is {self.tenant[:80]!r}; use 1 to 64 letters, digits, dots, dashes and underscores, "
                "a letter or digit first"
            )
        check_name("user", self.user, MAX_USER_ID, required=False)

    def require(self, scope: Scope) -> None:
        """Raises PermissionDenied without the scope, and names it."""
        if scope not in self.scopes:
            raise PermissionDenied(
                f"the credential has no scope {scope.value}; ask who issued it for one that has",
                reason="SCOPE_MISSING",
                details={"scope": scope.value},
            )

    def owner(self, user_id: str) -> Owner:
        """The owner that ``user_id`` names inside the tenant.

        Raises:
            InvalidRequest: an empty name, or one that is none.
            PermissionDenied: the credential speaks for another user; the error names neither.
        """
        owner = Owner(tenant=self.tenant, user=user_id)
        if self.user and user_id != self.user:
            raise PermissionDenied(
                "the credential speaks for one user, and the request names another; use that user's own",
                reason="USER_NOT_ALLOWED",
            )
        return owner

    def whole_tenant(self) -> str:
        """The tenant, for calls about all of its users. Raises PermissionDenied for a credential of one of them."""
        if self.user:
            raise PermissionDenied(
                "the credential speaks for one user, and the request is about all; use one of the tenant's",
                reason="USER_NOT_ALLOWED",
            )
        return self.tenant


EVERYBODY = Caller(tenant=DEFAULT_TENANT, scopes=frozenset(Scope), name="everybody")
"""Every caller of a server that asks for no credentials."""
