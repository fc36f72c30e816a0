"""One memory as one sealed file, for another installation. Format 1::

    8 bytes   HOPEMEM1
    frames    4 bytes big-endian length, then so many bytes
      0       header, JSON, readable: fingerprint, schema, version, how the rest is sealed
      1       sealed manifest, JSON: counters, tensors (dtype, shape, sha256 of each chunk), sources
      2 …     sealed chunks, in the manifest's order of tensors; nothing may follow the last

Every seal is bound to its place and to the sha256 of the header, so no frame can be moved, cut off or taken from
another file. ``Lock`` says what the seal's key is made from.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hope_serve.api import Source
from hope_serve.errors import CorruptMemory, FailedPrecondition, PermissionDenied
from hope_serve.memory.seal import KEY_BYTES, SealBroken, Sealer, bind
from hope_serve.memory.snapshot import CHUNK_BYTES, Counter, Snapshot, TensorBytes, digest_tensor, expected_bytes

MAGIC = b"HOPEMEM1"
FORMAT = 1
MAX_FRAME_BYTES = CHUNK_BYTES + 4096
MAX_MANIFEST_BYTES = 2**20
_SCRYPT_COST = 2**15
_OPEN_KEY = hashlib.sha256(b"hope-memory file without a passphrase").digest()


class Lock(enum.Enum):
    """What the file's key is made from.

    PASSPHRASE: whoever knows it can open the file (scrypt, AES-256-GCM).
    NONE: anybody can; the seals only show damage.
    """

    PASSPHRASE = "passphrase"
    NONE = "none"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The readable first frame."""

    format: int
    fingerprint: str
    schema: int
    version: int
    exported_at: float
    lock: Lock
    salt: str


class _Tensor(msgspec.Struct, frozen=True, kw_only=True):
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[str, ...]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    counters: dict[str, Counter]
    tensors: dict[str, _Tensor]
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Portable:
    """A memory taken out of a store: its content, where it came from, and when it was taken."""

    snapshot: Snapshot
    sources: tuple[Source, ...]
    version: int
    exported_at: float


async def write_portable(memory: Portable, passphrase: str | None) -> AsyncIterator[bytes]:
    """The file's bytes, piece by piece."""
    header = Header(
        format=FORMAT,
        fingerprint=memory.snapshot.fingerprint,
        schema=memory.snapshot.schema,
        version=memory.version,
        exported_at=memory.exported_at,
        lock=Lock.NONE if passphrase is None else Lock.PASSPHRASE,
        salt=os.urandom(16).hex(),
    )
    encoded = msgspec.json.encode(header)
    sealer, place = await asyncio.to_thread(_sealer, header, passphrase), _Place(encoded)
    tensors = memory.snapshot.tensors
    manifest = _Manifest(
        counters=dict(memory.snapshot.counters),
        tensors={name: _described(tensor) for name, tensor in tensors.items()},
        sources=memory.sources,
    )
    yield MAGIC + _frame(encoded) + _frame(sealer.seal(msgspec.json.encode(manifest), place.next()))
    for tensor in tensors.values():
        for chunk in tensor.chunks():
            yield _frame(sealer.seal(chunk, place.next()))


async def read_portable(
    stream: AsyncIterable[bytes], passphrase: str | None, *, fingerprint: str, max_bytes: int
) -> Portable:
    """Read and check a file.

    Args:
        stream: the file, in pieces of any size.
        fingerprint: the model that the memory must belong to.
        max_bytes: of the tensors; checked before they are read.

    Raises:
        FailedPrecondition: another model, a newer format, or too large.
        PermissionDenied: the passphrase is missing or wrong.
        CorruptMemory: the file is damaged, cut off, or longer than it says.
    """
    reader = _Reader(stream)
    if await reader.exactly(len(MAGIC)) != MAGIC:
        raise CorruptMemory("this is not a memory file; its first bytes are not HOPEMEM1")
    encoded = await reader.frame(MAX_FRAME_BYTES)
    header = _header(encoded)
    _check_header(header, fingerprint, passphrase)
    sealer, place = await asyncio.to_thread(_sealer, header, passphrase), _Place(encoded)
    manifest = _open_manifest(sealer, await reader.frame(MAX_MANIFEST_BYTES), place.next(), header.lock)
    size = sum(expected_bytes(tensor.dtype, tensor.shape) for tensor in manifest.tensors.values())
    if size > max_bytes:
        raise FailedPrecondition(f"the memory in the file has {size} bytes, above the limit of {max_bytes}")
    tensors: dict[str, TensorBytes] = {}
    for name, described in manifest.tensors.items():
        chunks = [_open(sealer, await reader.frame(MAX_FRAME_BYTES), place.next()) for _ in described.chunks]
        tensors[name] = _assembled(name, described, chunks)
    await reader.end()
    snapshot = Snapshot(
        fingerprint=header.fingerprint, schema=header.schema, tensors=tensors, counters=manifest.counters
    )
    return Portable(snapshot=snapshot, sources=manifest.sources, version=header.version, exported_at=header.exported_at)


class _Place:
    """Bindings of the sealed frames, one after the other."""

    def __init__(self, header: bytes) -> None:
        self._header = hashlib.sha256(header).hexdigest()
        self._number = 0

    def next(self) -> bytes:
        self._number += 1
        return bind("hope-memory-file-1", self._header, str(self._number))


class _Reader:
    """Takes frames out of a stream."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream: AsyncIterator[bytes] = aiter(stream)
        self._held = bytearray()

    async def exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            piece = await anext(self._stream, None)
            if piece is None:
                raise CorruptMemory("the memory file is cut off")
            self._held += piece
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    async def frame(self, limit: int) -> bytes:
        length = int.from_bytes(await self.exactly(4), "big")
        if length > limit:
            raise CorruptMemory(f"the memory file has a frame of {length} bytes, above the limit of {limit}")
        return await self.exactly(length)

    async def end(self) -> None:
        if self._held or any([piece async for piece in self._stream]):
            raise CorruptMemory("the memory file goes on after its end")


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def _sealer(header: Header, passphrase: str | None) -> Sealer:
    if passphrase is None:
        return Sealer(_OPEN_KEY, encrypts=False)
    salt = bytes.fromhex(header.salt)
    key = Scrypt(salt=salt, length=KEY_BYTES, n=_SCRYPT_COST, r=8, p=1).derive(passphrase.encode())
    return Sealer(key, encrypts=True)


def _header(encoded: bytes) -> Header:
    try:
        form = msgspec.json.decode(encoded, type=dict)
        if isinstance(number := form.get("format"), int) and number > FORMAT:
            raise FailedPrecondition(f"the memory file has format {number}, and this program knows {FORMAT}")
        header = msgspec.convert(form, Header)
        bytes.fromhex(header.salt)
    except (msgspec.DecodeError, ValueError) as error:
        raise CorruptMemory(f"the header of the memory file is damaged ({error})") from error
    return header


def _check_header(header: Header, fingerprint: str, passphrase: str | None) -> None:
    if header.fingerprint != fingerprint:
        raise FailedPrecondition(
            f"the file holds a memory of the model {header.fingerprint}, not of {fingerprint}; serve that model",
            reason="OTHER_MODEL",
        )
    if (header.lock is Lock.NONE) != (passphrase is None):
        needed = "no passphrase" if header.lock is Lock.NONE else "a passphrase"
        raise PermissionDenied(f"the memory file needs {needed}", reason="PASSPHRASE")


def _open_manifest(sealer: Sealer, sealed: bytes, place: bytes, lock: Lock) -> _Manifest:
    try:
        return msgspec.json.decode(sealer.open(sealed, place), type=_Manifest)
    except SealBroken as error:
        if lock is Lock.PASSPHRASE:
            raise PermissionDenied("the passphrase is wrong, or the file is damaged", reason="PASSPHRASE") from error
        raise CorruptMemory("the manifest of the memory file is damaged") from error
    except msgspec.DecodeError as error:
        raise CorruptMemory("the manifest of the memory file is damaged") from error


def _open(sealer: Sealer, sealed: bytes, place: bytes) -> bytes:
    try:
        return bytes(sealer.open(sealed, place))
    except SealBroken as error:
        raise CorruptMemory("a chunk of the memory file is damaged") from error


def _assembled(name: str, described: _Tensor, chunks: list[bytes]) -> TensorBytes:
    try:
        tensor = TensorBytes(dtype=described.dtype, shape=described.shape, data=b"".join(chunks))
    except ValueError as error:
        raise CorruptMemory(f"tensor {name!r} of the memory file does not fit ({error})") from error
    if _described(tensor) != described:
        raise CorruptMemory(f"tensor {name!r} of the memory file is not what its manifest says")
    return tensor


def _described(tensor: TensorBytes) -> _Tensor:
    digests: Mapping[int, bytes] = dict(enumerate(digest_tensor(tensor).chunks))
    return _Tensor(dtype=tensor.dtype, shape=tensor.shape, chunks=tuple(digest.hex() for digest in digests.values()))
