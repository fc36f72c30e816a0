"""Keys: a data key for every owner, wrapped by a tenant's key that rests outside the store."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hope_serve.errors import FailedPrecondition
from hope_serve.memory.seal import KEY_BYTES, SealBroken, Sealer, derive

ANY_TENANT = "*"
_MAX_ID_BYTES = 64
_CHECKSUM_BYTES = 4


class KeyRing(Protocol):
    """Wraps and unwraps data keys. A key-management service joins by these four."""

    @property
    def encrypts(self) -> bool:
        """Whether memories are made unreadable, or only bound by keyed tags."""
        ...

    async def wrap(self, tenant: str, key: bytes, binding: bytes) -> bytes:
        """Seal a data key with the tenant's current key."""
        ...

    async def unwrap(self, tenant: str, wrapped: bytes, binding: bytes) -> bytes:
        """The data key.

        Raises:
            SealBroken: the wrapped bytes are damaged, or were wrapped for another owner.
            FailedPrecondition: the key it was wrapped by is not on the ring.
        """
        ...

    def is_current(self, tenant: str, wrapped: bytes) -> bool:
        """Whether the tenant's current key wrapped it; False asks for rotation. Raises SealBroken."""
        ...


@dataclass(frozen=True, kw_only=True)
class NamedKey:
    """A tenant's key and the id that wrapped data keys remember it by."""

    id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.id.encode()) <= _MAX_ID_BYTES:
            raise ValueError(f"key id {self.id!r} must have 1 to {_MAX_ID_BYTES} bytes")
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"key {self.id!r} has {len(self.secret)} bytes; it must have {KEY_BYTES}")


class TenantKeys:
    """Keys held in this process.

    Args:
        keys: tenant to its keys, the current one first. ``ANY_TENANT`` serves the tenants not named: each gets keys
            derived from those for itself.
        encrypts: whether memories are encrypted with their data keys, or bound by keyed tags only.
    """

    def __init__(self, keys: Mapping[str, tuple[NamedKey, ...]], *, encrypts: bool = True) -> None:
        for tenant, ring in keys.items():
            if not ring or len({key.id for key in ring}) != len(ring):
                raise ValueError(f"tenant {tenant!r} needs at least one key, and every id once")
        if ANY_TENANT not in keys:
            raise ValueError(f"keys for {ANY_TENANT!r} are missing; they seal what belongs to the whole store")
        self._keys = dict(keys)
        self._encrypts = encrypts

    @property
    def encrypts(self) -> bool:
        """Whether memories are made unreadable, or only bound by keyed tags."""
        return self._encrypts

    async def wrap(self, tenant: str, key: bytes, binding: bytes) -> bytes:
        """Seal a data key with the tenant's current key."""
        current = self._ring(tenant)[0]
        return _label(current.id) + self._sealer(tenant, current).seal(key, binding)

    async def unwrap(self, tenant: str, wrapped: bytes, binding: bytes) -> bytes:
        """The data key. Raises SealBroken or FailedPrecondition."""
        key_id, sealed = _split(wrapped)
        for key in self._ring(tenant):
            if key.id.encode() == key_id:
                return bytes(self._sealer(tenant, key).open(sealed, binding))
        held = ", ".join(repr(key.id) for key in self._ring(tenant))
        raise FailedPrecondition(
            f"a data key was wrapped by the key {key_id.decode(errors='replace')!r}, but the keys held here are "
            f"{held}; configure that key again",
            reason="KEY_MISSING",
        )

    def is_current(self, tenant: str, wrapped: bytes) -> bool:
        """Whether the tenant's current key wrapped it."""
        return _split(wrapped)[0] == self._ring(tenant)[0].id.encode()

    def _ring(self, tenant: str) -> tuple[NamedKey, ...]:
        return self._keys.get(tenant) or self._keys[ANY_TENANT]

    def _sealer(self, tenant: str, key: NamedKey) -> Sealer:
        return Sealer(derive(derive(key.secret, "tenant"), tenant), encrypts=True)


def single_key(secret: bytes, *, key_id: str = "installation", encrypts: bool) -> TenantKeys:
    """One key for every tenant."""
    return TenantKeys({ANY_TENANT: (NamedKey(id=key_id, secret=secret),)}, encrypts=encrypts)


def new_key() -> bytes:
    """A random key."""
    return os.urandom(KEY_BYTES)


def _label(key_id: str) -> bytes:
    """The key's id ahead of what it wrapped, with a checksum: a damaged id must not pass for a missing key."""
    name = key_id.encode()
    return zlib.crc32(name).to_bytes(_CHECKSUM_BYTES, "big") + bytes([len(name)]) + name


def _split(wrapped: bytes) -> tuple[bytes, bytes]:
    """The key's id and what it wrapped. Raises SealBroken."""
    checksum, length = wrapped[:_CHECKSUM_BYTES], wrapped[_CHECKSUM_BYTES : _CHECKSUM_BYTES + 1]
    end = _CHECKSUM_BYTES + 1 + int.from_bytes(length, "big")
    name = wrapped[_CHECKSUM_BYTES + 1 : end]
    if zlib.crc32(name).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise SealBroken("the id of the wrapping key is damaged")
    return name, wrapped[end:]
