"""Every RPC once, through a real client, about a user who has two versions of a memory."""

from __future__ import annotations

from types import MappingProxyType

from hope_serve.api import SamplingParams
from hope_serve.errors import HopeError
from hope_serve.identity import Scope

SHORT = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)
PASSPHRASE = "a long secret"


async def _all(events):
    return [event async for event in events]


async def _export(client, user):
    return b"".join(await _all(client.export_memory(user, passphrase=PASSPHRASE)))


async def _import(client, user):
    """``exported``: the file that the test had somebody export before."""
    return await client.import_memory(f"{user} in", [client.exported], passphrase=PASSPHRASE)


CALLS = MappingProxyType(
    {
        "Generate": (Scope.GENERATE, lambda c, u: c.generate("tea", user_id=u, sampling=SHORT)),
        "GenerateStream": (Scope.GENERATE, lambda c, u: _all(c.stream("tea", user_id=u, sampling=SHORT))),
        "Score": (Scope.GENERATE, lambda c, u: c.score("tea", ["pot"], user_id=u)),
        "Tokenize": (None, lambda c, u: c.tokenize("tea")),
        "Detokenize": (None, lambda c, u: c.detokenize([1])),
        "GetModel": (None, lambda c, u: c.get_model()),
        "Adapt": (Scope.ADAPT, lambda c, u: c.adapt(u, "My dog is called Biscuit.")),
        "AdaptStream": (Scope.ADAPT, lambda c, u: c.adapt_stream(u, ["I live in Bergen.", "I like tea."])),
        "GetMemory": (Scope.MEMORY_READ, lambda c, u: c.get_memory(u)),
        "ListMemories": (Scope.ADMIN, lambda c, u: _all(c.list_memories())),
        "ListVersions": (Scope.MEMORY_READ, lambda c, u: c.list_versions(u)),
        "RollbackMemory": (Scope.MEMORY_WRITE, lambda c, u: c.rollback_memory(u, 1)),
        "ForkMemory": (Scope.MEMORY_WRITE, lambda c, u: c.fork_memory(u, f"{u} copy")),
        "EvaluateMemory": (Scope.MEMORY_READ, lambda c, u: c.evaluate_memory(u, ["tea"])),
        "ExportMemory": (Scope.MEMORY_READ, _export),
        "ImportMemory": (Scope.MEMORY_WRITE, _import),
        "WarmMemory": (Scope.GENERATE, lambda c, u: c.warm_memory(u)),
        "DeleteSession": (Scope.GENERATE, lambda c, u: c.delete_session(u, "talk")),
        "DeleteMemory": (Scope.MEMORY_WRITE, lambda c, u: c.delete_memory(u)),
    }
)
"""Scope that opens it, and the call; the erasure stands last."""

ABOUT_NOBODY = ("Tokenize", "Detokenize", "GetModel")


async def outcomes(client, user, *, methods=tuple(CALLS)) -> dict[str, str]:
    """What became of each call: "ok", or the error's reason."""
    found = {}
    for method in methods:
        try:
            await CALLS[method][1](client, user)
        except HopeError as error:
            assert user not in str(error), method
            found[method] = error.reason
        else:
            found[method] = "ok"
    return found
