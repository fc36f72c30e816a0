"""Tenants' keys from a file, or from a secret in the environment that the configuration hands in.

The file is TOML, readable by its owner alone::

    format = 1

    [tenants."*"]               # every tenant that is not named; each gets keys derived for itself
    current = "2026-11"         # wraps; the others only unwrap, until rotation is done
    keys = { "2026-11" = "base64 of 32 bytes", "2025-11" = "…" }

    [tenants.acme]
    current = "a1"
    keys = { a1 = "…" }

The secret is ``id:base64[,id:base64…]`` for every tenant, the current key first.
"""

from __future__ import annotations

import base64
import binascii
import stat
import tomllib
from pathlib import Path

import msgspec

from hope_serve.errors import FailedPrecondition
from hope_serve.memory.keys import ANY_TENANT, NamedKey, TenantKeys

_FORMAT = 1


class _Tenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    current: str
    keys: dict[str, str]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    tenants: dict[str, _Tenant]


def load_key_file(path: Path) -> TenantKeys:
    """The keys in a file. Raises FailedPrecondition, naming what is wrong and no secret."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise _refused(path, "others than its owner may read it; run `chmod 600` on it")
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8-sig")), _File)
    except OSError as error:
        raise _refused(path, f"it cannot be read ({error.strerror}); check the path and its permissions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise _refused(
            path, f"it is not a key file ({error}); see the documentation of hope_serve.memory.key_file"
        ) from error
    if found.format != _FORMAT:
        raise _refused(path, f"it has format {found.format}, and this program knows {_FORMAT}")
    try:
        return TenantKeys({tenant: _ring(tenant, entry) for tenant, entry in found.tenants.items()})
    except ValueError as error:
        raise _refused(path, str(error)) from error


def parse_key_secret(secret: str) -> TenantKeys:
    """The keys in ``id:base64[,id:base64…]``. Raises FailedPrecondition, naming no secret."""
    try:
        pairs = [entry.strip().partition(":") for entry in secret.split(",")]
        return TenantKeys({ANY_TENANT: tuple(_key(name, text) for name, _, text in pairs)})
    except ValueError as error:
        raise FailedPrecondition(
            f"the memory key secret is refused: {error}; write it as id:base64[,id:base64…]", reason="KEY_FILE"
        ) from error


def _ring(tenant: str, entry: _Tenant) -> tuple[NamedKey, ...]:
    if entry.current not in entry.keys:
        raise ValueError(f"the current key {entry.current!r} of tenant {tenant!r} is not among its keys")
    names = [entry.current, *(name for name in entry.keys if name != entry.current)]
    return tuple(_key(name, entry.keys[name]) for name in names)


def _key(name: str, text: str) -> NamedKey:
    try:
        secret = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"key {name!r} is not base64") from error
    return NamedKey(id=name, secret=secret)


def _refused(path: Path, message: str) -> FailedPrecondition:
    return FailedPrecondition(f"the key file {path} is refused: {message}", reason="KEY_FILE")
