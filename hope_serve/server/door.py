"""Which scope every RPC needs, and the look at the caller's credential before a call is let in."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import grpc

from hope_serve.identity import EVERYBODY, Scope
from hope_serve.identity.authenticator import Authenticator
from hope_serve.server.owners import CALLER

SCOPES = MappingProxyType(
    {
        "Generate": Scope.GENERATE,
        "GenerateStream": Scope.GENERATE,
        "Score": Scope.GENERATE,
        "Tokenize": None,
        "Detokenize": None,
        "GetModel": None,
        "Adapt": Scope.ADAPT,
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

_KEY = "authorization"
_BEARER = "bearer "


class Door:
    """Looks at credentials.

    Args:
        authenticator: knows them; None lets everybody do everything.
    """

    def __init__(self, authenticator: Authenticator | None) -> None:
        self._authenticator = authenticator

    async def enter(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Let a call in, and note whose it is for the rest of its task.

        Raises:
            Unauthenticated: no valid credential.
            PermissionDenied: the credential has not the method's scope.
        """
        caller = EVERYBODY
        if self._authenticator:
            caller = await self._authenticator.caller(_credential(context))
        if scope := SCOPES[method]:
            caller.require(scope)
        CALLER.set(caller)


def _credential(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """What follows ``Bearer``; "" without."""
    for key, value in context.invocation_metadata() or ():
        if key == _KEY and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return ""
