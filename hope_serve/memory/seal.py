"""Seals: bytes bound to their owner and their place, so that moved, edited or foreign bytes never open."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FORMAT = "hope-memory-1"
"""First field of every binding: the version of the stored format."""

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_MAC_BYTES = 32
_ENCRYPTED = b"\x01"
_AUTHENTICATED = b"\x02"

Buffer = bytes | bytearray | memoryview


class SealBroken(Exception):
    """The bytes were not sealed with this key for this place."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Whose bytes: the tenant and the owner's index. Each method names one place among that owner's bytes."""

    tenant: str
    index: str

    def chunk(self, fingerprint: str, place: str, tensor: str, number: int) -> bytes:
        """Piece ``number`` of a tensor, in the generation (version written and nonce) or session turn ``place``."""
        return self._bind("chunk", fingerprint, place, tensor, str(number))

    def manifest(self, version: int, base_version: int) -> bytes:
        """The list of a version's tensors."""
        return self._bind("manifest", str(version), str(base_version))

    def about(self, version: int) -> bytes:
        """How a version came to be."""
        return self._bind("about", str(version))

    def result(self, request: str, digest: str, version: int) -> bytes:
        """The reply a request was given."""
        return self._bind("result", request, digest, str(version))

    def session(self, session: str, turn: int, base_version: int) -> bytes:
        """The list of a conversation's tensors."""
        return self._bind("session", session, str(turn), str(base_version))

    def data_key(self) -> bytes:
        """The owner's wrapped data key."""
        return self._bind("data key")

    @functools.cached_property
    def _owner(self) -> bytes:
        return bind(FORMAT, self.tenant, self.index)

    def _bind(self, *place: str) -> bytes:
        return self._owner + bind(*place)


class Sealer:
    """Seals with one key: AES-256-GCM, or a keyed BLAKE2b tag over readable bytes. Nonces are random.

    Args:
        key: 32 bytes.
        encrypts: whether the bytes are also made unreadable.
    """

    def __init__(self, key: bytes, *, encrypts: bool) -> None:
        self._encrypts = encrypts
        self._mac_key = derive(key, "mac")
        self._cipher = AESGCM(derive(key, "cipher"))

    @property
    def overhead(self) -> int:
        """Bytes that a seal adds."""
        return 1 + (_NONCE_BYTES + _TAG_BYTES if self._encrypts else _MAC_BYTES)

    def seal(self, data: Buffer, binding: bytes) -> bytes:
        """Bind the data to its place."""
        if not self._encrypts:
            return b"".join((_AUTHENTICATED, self._mac(data, binding), data))
        nonce = os.urandom(_NONCE_BYTES)
        return b"".join((_ENCRYPTED, nonce, self._cipher.encrypt(nonce, data, binding)))

    def open(self, sealed: Buffer, binding: bytes) -> Buffer:
        """The data, once shown to be what was sealed for this place. Raises SealBroken."""
        view = memoryview(sealed)
        expected = _ENCRYPTED if self._encrypts else _AUTHENTICATED
        if len(view) < self.overhead or view[:1] != expected:
            raise SealBroken("too short, or sealed in another way")
        if not self._encrypts:
            return self._open_authenticated(view, binding)
        nonce, body = view[1 : 1 + _NONCE_BYTES], view[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, binding)
        except InvalidTag as error:
            raise SealBroken("the tag does not fit") from error

    def _open_authenticated(self, view: memoryview, binding: bytes) -> memoryview:
        data = view[1 + _MAC_BYTES :]
        if not hmac.compare_digest(view[1 : 1 + _MAC_BYTES], self._mac(data, binding)):
            raise SealBroken("the tag does not fit")
        return data

    def _mac(self, data: Buffer, binding: bytes) -> bytes:
        mac = hashlib.blake2b(bind_length(binding), key=self._mac_key, digest_size=_MAC_BYTES)
        mac.update(data)
        return mac.digest()


def derive(key: bytes, purpose: str) -> bytes:
    """A 32-byte key of its own for one purpose."""
    return hashlib.blake2b(purpose.encode(), key=key, person=b"hope derive", digest_size=KEY_BYTES).digest()


def bind(*fields: str) -> bytes:
    """Fields as one text that only they give: each is preceded by its length."""
    return b"".join(bind_length(field.encode("utf-8", "surrogatepass")) for field in fields)


def bind_length(field: bytes) -> bytes:
    """A field preceded by its length in bytes."""
    return len(field).to_bytes(4, "big") + field
