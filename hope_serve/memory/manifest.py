"""The manifest: every tensor of a version and where its chunks rest."""

from __future__ import annotations

import functools

import msgspec

from hope_serve.memory.snapshot import Counter, TensorDigest, combine_digests, expected_bytes

STORE_FORMAT = 1
MAX_MANIFEST_BYTES = 256 * 1024

Refs = frozenset[tuple[str, int]]
"""Chunks by (generation, number)."""


class ChunkRef(msgspec.Struct, frozen=True, array_like=True):
    """A stored chunk: the sha256 of its plain bytes, the manifest's generation and the number within it."""

    digest: bytes
    generation: int
    number: int


class TensorEntry(msgspec.Struct, frozen=True, array_like=True):
    """One tensor."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[ChunkRef, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor's values."""
        return expected_bytes(self.dtype, self.shape)

    @property
    def digest(self) -> TensorDigest:
        """What identifies its content."""
        return TensorDigest(dtype=self.dtype, shape=self.shape, chunks=tuple(chunk.digest for chunk in self.chunks))


class Manifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A version's content, without the bytes.

    Args:
        format: version of the stored format.
        fingerprint: model it belongs to.
        schema: the engine's layout version.
        counters: the snapshot's counters.
        generations: names that chunk refs point to by position. A name is written once, for one set of chunks.
        tensors: by name.
    """

    format: int
    fingerprint: str
    schema: int
    counters: dict[str, Counter]
    generations: tuple[str, ...]
    tensors: dict[str, TensorEntry]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @functools.cached_property
    def refs(self) -> Refs:
        """Every chunk that the version needs; asked for by each commit while the version is kept."""
        return frozenset(
            (self.generations[chunk.generation], chunk.number)
            for tensor in self.tensors.values()
            for chunk in tensor.chunks
        )

    def state_digest(self) -> str:
        """The same digest as ``snapshot.state_digest`` of the content."""
        digests = {name: tensor.digest for name, tensor in self.tensors.items()}
        return combine_digests(self.fingerprint, self.counters, digests)


def encode_manifest(manifest: Manifest) -> bytes:
    """Bytes to be sealed. Raises ValueError when there are too many tensors for one manifest."""
    encoded = msgspec.msgpack.encode(manifest)
    if len(encoded) > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"the manifest of {len(manifest.tensors)} tensors takes {len(encoded)} bytes, above the limit of "
            f"{MAX_MANIFEST_BYTES}; join small tensors"
        )
    return encoded


def decode_manifest(encoded: bytes | bytearray | memoryview) -> Manifest:
    """The manifest. Only called on bytes whose seal has been checked: what does not fit is another format."""
    return msgspec.msgpack.decode(encoded, type=Manifest)
