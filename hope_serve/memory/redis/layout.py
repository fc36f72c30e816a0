"""Names of the keys. All keys of an owner share a hash tag: they live in one slot of a cluster."""

from __future__ import annotations

SECRET = "hs:secret"
INSTALLATION = "hs:installation"
TENANTS = "hs:tenants"
MARKS = "hs:marks"
ERASED_CHANNEL = "hs:erased"


def beside(key: str) -> str:
    """A key without meaning in the slot of another."""
    return f"hs:{{{key}}}:beside"


def head(owner: str) -> str:
    """The head; the functions build the owner's other keys from it."""
    return f"hs:{{{owner}}}:m"


def record(owner: str) -> tuple[str, ...]:
    """The owner's fixed keys, the head first."""
    return tuple(f"hs:{{{owner}}}:{part}" for part in "mvniegz")


def chunks(owner: str, generation: str) -> str:
    """The chunks of one generation, by number."""
    return f"hs:{{{owner}}}:c:{generation}"


def session_chunks(owner: str, generation: str) -> str:
    """The chunks of one turn of a conversation, by number."""
    return f"hs:{{{owner}}}:t:{generation}"


def tenant_owners(tenant: str) -> str:
    """The tenant's owners, in index order."""
    return f"hs:{{t{tenant}}}:o"


def tenant_usage(tenant: str) -> str:
    """What the tenant's memories weigh."""
    return f"hs:{{t{tenant}}}:m"
