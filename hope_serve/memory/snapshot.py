"""What a memory holds, as bytes: named tensors and a few counters, for one model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

CHUNK_BYTES = 256 * 1024
"""Largest piece of a tensor that is stored as one value; part of the stored format and of the state digest."""

MAX_COUNTERS_BYTES = 16 * 1024

ITEM_BYTES: Mapping[str, int] = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
}

Counter = int | float | str


@dataclass(frozen=True, kw_only=True)
class TensorBytes:
    """A contiguous tensor's values, row-major, little-endian.

    Raises:
        ValueError: the dtype is unknown, or the data is not as long as dtype and shape say.
    """

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"dtype {self.dtype!r} is not one of {', '.join(ITEM_BYTES)}")
        if any(size < 0 for size in self.shape):
            raise ValueError(f"shape {self.shape} has a negative size")
        if self.num_bytes != expected_bytes(self.dtype, self.shape):
            raise ValueError(
                f"{self.num_bytes} bytes given, but {self.dtype} {self.shape} has "
                f"{expected_bytes(self.dtype, self.shape)}"
            )

    @property
    def num_bytes(self) -> int:
        """Length of the data in bytes."""
        return self.data.nbytes if isinstance(self.data, memoryview) else len(self.data)

    def chunks(self) -> Iterator[memoryview]:
        """The data in pieces of at most ``CHUNK_BYTES``; none for an empty tensor."""
        view = memoryview(self.data).cast("B")
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One memory at one moment.

    Args:
        fingerprint: hex sha256 of the model it belongs to.
        schema: version of the layout of tensors and counters, owned by the engine.
        tensors: name to values; the order has no meaning.
        counters: flat, small facts that travel with the tensors (tokens learned, steps, drift).

    Raises:
        ValueError: a counter is not finite, or the counters are larger than ``MAX_COUNTERS_BYTES`` as JSON.
    """

    fingerprint: str
    schema: int
    tensors: Mapping[str, TensorBytes]
    counters: Mapping[str, Counter]

    def __post_init__(self) -> None:
        for name, value in self.counters.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"counter {name!r} is {value}; counters must be finite")
        if (size := len(canonical_json(self.counters))) > MAX_COUNTERS_BYTES:
            raise ValueError(f"counters take {size} bytes as JSON, above the limit of {MAX_COUNTERS_BYTES}")

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())


@dataclass(frozen=True, kw_only=True)
class TensorDigest:
    """What identifies a tensor's content: the sha256 of each of its chunks, in order."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[bytes, ...]


def digest_tensor(tensor: TensorBytes) -> TensorDigest:
    """Hash a tensor chunk by chunk."""
    chunks = tuple(hashlib.sha256(chunk).digest() for chunk in tensor.chunks())
    return TensorDigest(dtype=tensor.dtype, shape=tensor.shape, chunks=chunks)


def state_digest(snapshot: Snapshot) -> str:
    """Hex sha256 over fingerprint, tensors and counters: equal for equal content in any store, at any version."""
    digests = {name: digest_tensor(tensor) for name, tensor in snapshot.tensors.items()}
    return combine_digests(snapshot.fingerprint, snapshot.counters, digests)


def combine_digests(fingerprint: str, counters: Mapping[str, Counter], tensors: Mapping[str, TensorDigest]) -> str:
    """``state_digest`` from digests that are already known, so that unmoved tensors are not hashed again."""
    listed = [(name, t.dtype, t.shape, [c.hex() for c in t.chunks]) for name, t in sorted(tensors.items())]
    return hashlib.sha256(canonical_json([fingerprint, dict(counters), listed])).hexdigest()


def expected_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of this dtype and shape."""
    return ITEM_BYTES[dtype] * math.prod(shape)


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys: one text for one value."""
    return msgspec.json.encode(value, order="deterministic")
