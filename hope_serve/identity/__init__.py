"""Who calls, and what they may: API keys, tokens, certificates. Knows no wire; the tenant comes from here alone.

What verifies tokens is imported where it is needed: it loads much."""

from hope_serve.identity.caller import EVERYBODY, Caller, Scope

__all__ = ["EVERYBODY", "Caller", "Scope"]
