"""From an owner to what opens their bytes: index, data key, codec."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hope_serve.api import Owner
from hope_serve.errors import CorruptMemory, FailedPrecondition
from hope_serve.memory.backend import Backend, HeadRow, Record
from hope_serve.memory.codec import Codec
from hope_serve.memory.index import Index
from hope_serve.memory.keys import KeyRing, new_key
from hope_serve.memory.recent import Recent
from hope_serve.memory.seal import FORMAT, Binding, SealBroken, Sealer, bind

T = TypeVar("T")
Offload = Callable[[int, Callable[[], T]], Awaitable[T]]

MAX_DATA_KEYS = 4096
_INLINE_BYTES = 64 * 1024
_STORE_BINDING = bind(FORMAT, "store secret")


class Owners:
    """Knows the store's secret and the data keys of owners met lately.

    Args:
        backend: where the wrapped keys rest.
        keys: what wraps them.
    """

    def __init__(self, backend: Backend, keys: KeyRing) -> None:
        self._backend = backend
        self._keys = keys
        self._index: Index | None = None
        self._secret = self._wrapped = b""
        self._codecs: Recent[tuple[str, bytes], Codec] = Recent(MAX_DATA_KEYS)

    @property
    def index(self) -> Index:
        """The store's names; there once opened."""
        assert self._index is not None, "the store is not open"
        return self._index

    async def open(self) -> None:
        """Make or unwrap the store's secret. Raises FailedPrecondition when the keys are not this store's."""
        offered = await self._keys.wrap("", new_key(), _STORE_BINDING)
        wrapped = await self._backend.claim_secret(offered)
        self._secret = await self._unwrapped(wrapped)
        self._wrapped = wrapped
        self._index = Index(self._secret, encrypts=self._keys.encrypts)

    async def check_secret(self) -> None:
        """Return when the database still holds the secret. Raises FailedPrecondition: it is lost, or another."""
        wrapped = await self._backend.secret()
        if not wrapped:
            raise secret_lost()
        if wrapped != self._wrapped:
            if await self._unwrapped(wrapped) != self._secret:
                raise FailedPrecondition("the store holds another secret than before", reason="SECRET_CHANGED")
            self._wrapped = wrapped

    async def rewrap_secret(self) -> bool:
        """Wrap the store's secret with the current key; False when it is so already."""
        wrapped = await self._backend.secret()
        if not wrapped:
            raise secret_lost()
        if self._keys.is_current("", wrapped):
            return False
        secret = await self._keys.unwrap("", wrapped, _STORE_BINDING)
        return await self._backend.replace_secret(wrapped, await self._keys.wrap("", secret, _STORE_BINDING))

    def binding(self, owner: Owner) -> Binding:
        """The owner's place in the store. Raises InvalidRequest."""
        return self.index.owner(owner)

    async def head(self, binding: Binding) -> HeadRow:
        """The owner's head, checked. Raises CorruptMemory."""
        return self.index.check_head(binding, await self._backend.head(binding.index))

    async def record(self, binding: Binding) -> Record:
        """The owner's record, its head checked. Raises CorruptMemory."""
        record = await self._backend.read(binding.index)
        head = self.index.check_head(binding, record.head)
        newest = max(record.versions, default=0)
        if newest > head.version:
            raise CorruptMemory(f"the memory says it is at version {head.version}, but version {newest} is kept")
        return record

    async def codec(self, binding: Binding, wrapped: bytes) -> Codec:
        """What opens the owner's bytes. Raises CorruptMemory or FailedPrecondition."""
        if codec := self._codecs.get((binding.index, wrapped)):
            return codec
        try:
            key = await self._keys.unwrap(binding.tenant, wrapped, binding.data_key())
        except SealBroken as error:
            raise CorruptMemory("the owner's data key failed its seal; the memory cannot be opened") from error
        codec = Codec(sealer=Sealer(key, encrypts=self._keys.encrypts), binding=binding)
        self._codecs.put((binding.index, wrapped), codec)
        return codec

    async def claim(self, owner: Owner, *, tomb: int) -> Codec | None:
        """The codec of an owner who may have no key yet; None if the owner was erased since ``tomb``."""
        binding = self.binding(owner)
        record = await self.record(binding)
        if record.data_key and record.head.tomb <= tomb:
            return await self.codec(binding, record.data_key)
        offered = await self._keys.wrap(binding.tenant, new_key(), binding.data_key())
        tenant, name = self.index.tenant(owner.tenant), self.index.seal_name(owner)
        wrapped = await self._backend.claim_key(binding.index, tenant, name, offered, tomb=tomb)
        return await self.codec(binding, wrapped) if wrapped else None

    async def _unwrapped(self, wrapped: bytes) -> bytes:
        try:
            return await self._keys.unwrap("", wrapped, _STORE_BINDING)
        except SealBroken as error:
            raise FailedPrecondition(
                "the store's secret does not open with the configured key; configure the key the store was made with",
                reason="KEY_MISMATCH",
            ) from error

    async def rewrap(self, binding: Binding, wrapped: bytes) -> bytes | None:
        """The same data key under the tenant's current key; None when it is there already."""
        try:
            if self._keys.is_current(binding.tenant, wrapped):
                return None
            key = await self._keys.unwrap(binding.tenant, wrapped, binding.data_key())
        except SealBroken as error:
            raise CorruptMemory("the owner's data key failed its seal") from error
        return await self._keys.wrap(binding.tenant, key, binding.data_key())


def secret_lost() -> FailedPrecondition:
    """A new secret would make strangers of all owners."""
    return FailedPrecondition(
        "the store has memories and has lost the secret that they are kept under; restore it from a backup",
        reason="SECRET_LOST",
    )


async def offload(num_bytes: int, work: Callable[[], T]) -> T:
    """Run work on this many bytes: in a thread, unless it is over before a thread would have started."""
    if num_bytes <= _INLINE_BYTES:
        return work()
    return await asyncio.to_thread(work)
