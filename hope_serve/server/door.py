"""Which scope every RPC needs, and the look at the caller's credential before a call is let in."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import grpc

from hope_serve.api import Owner
from hope_serve.identity import EVERYBODY, Scope
from hope_serve.identity.authenticator import Authenticator
from hope_serve.server.owners import VISIT, Visit, require_admin

SCOPES = MappingProxyType(
    {
        "Generate": Scope.GENERATE,
        "GenerateStream": Scope.GENERATE,
        "Score": Scope.GENERATE,
        "Tokenize": None,
        "Detokenize": None,
        "GetModel": None,
        "Adapt": Scope.ADAPT,
        "AdaptStream": Scope.ADAPT,
        "GetMemory": Scope.MEMORY_READ,
        "ListMemories": Scope.ADMIN,
        "ListVersions": Scope.MEMORY_READ,
        "RollbackMemory": Scope.MEMORY_WRITE,
        "ForkMemory": Scope.MEMORY_WRITE,
        "EvaluateMemory": Scope.MEMORY_READ,
        "ExportMemory": Scope.MEMORY_READ,
        "ImportMemory": Scope.MEMORY_WRITE,
        "WarmMemory": Scope.GENERATE,
        "DeleteMemory": Scope.MEMORY_WRITE,
        "DeleteSession": Scope.GENERATE,
    }
)
"""None: any valid credential. Beyond this, ``learn`` in a generation needs adapt, and an export without a passphrase
admin. Health checks need nothing: they say nothing about anybody."""

READING = frozenset(
    {"Generate", "GenerateStream", "Score", "GetMemory", "ListVersions", "EvaluateMemory", "WarmMemory"}
)
"""RPCs that read a memory and leave no other record. ExportMemory leaves one."""

RecordRead = Callable[[Owner, str, str], None]

_KEY = "authorization"
_BEARER = "bearer "


class Door:
    """Looks at credentials.

    Args:
        authenticator: knows them; None lets everybody do everything.
        record_read: puts on record whose memory was read by which RPC and with which status; None does not.
        takes_admin: whether what needs the scope admin is answered at this address.
    """

    def __init__(
        self,
        authenticator: Authenticator | None,
        record_read: RecordRead | None = None,
        *,
        takes_admin: bool = True,
    ) -> None:
        self._authenticator = authenticator
        self._record_read = record_read
        self._takes_admin = takes_admin

    async def enter(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Let a call in, and note whose it is for the rest of its task.

        Raises:
            Unauthenticated: no valid credential.
            PermissionDenied: the credential has not the method's scope.
        """
        caller = EVERYBODY
        if self._authenticator:
            caller = await self._authenticator.caller(_credential(context))
        VISIT.set(Visit(caller=caller, takes_admin=self._takes_admin))
        scope = SCOPES[method]
        if scope is Scope.ADMIN:
            require_admin()
        elif scope:
            caller.require(scope)

    def leave(self, method: str, code: str) -> None:
        """A call that was let in has ended. What it changed is on record already."""
        visit = VISIT.get(None)
        if visit and self._record_read and method in READING:
            for owner in dict.fromkeys(visit.owners):
                self._record_read(owner, method, code)


def _credential(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """What follows ``Bearer``; "" without."""
    for key, value in context.invocation_metadata() or ():
        if key == _KEY and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return ""
