"""Snapshots to sealed chunks and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hope_serve.errors import CorruptMemory
from hope_serve.memory.manifest import STORE_FORMAT, ChunkRef, Manifest, TensorEntry
from hope_serve.memory.seal import Binding, Buffer, SealBroken, Sealer
from hope_serve.memory.snapshot import Snapshot, TensorBytes

Chunks = Mapping[tuple[str, int], Buffer]
"""Sealed chunks by (generation, number)."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A snapshot ready to be stored: its manifest, and the sealed chunks of the new generation, by number."""

    manifest: Manifest
    chunks: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Codec:
    """Seals and opens one owner's tensors."""

    sealer: Sealer
    binding: Binding

    def write(
        self,
        snapshot: Snapshot,
        generation: str,
        *,
        base: Manifest | None = None,
        unmoved: frozenset[str] = frozenset(),
    ) -> Written:
        """Seal what the base does not hold already.

        Args:
            snapshot: what moved.
            generation: name for the new chunks, never used before for this owner.
            base: the version that chunks may be taken over from; of the same model.
            unmoved: tensors taken over from the base whole.

        Raises:
            ValueError: an unmoved tensor is not in the base, or is in the snapshot as well.
        """
        _check_unmoved(snapshot, base, unmoved)
        sheet = _Sheet(self, snapshot.fingerprint, generation)
        known = base.tensors if base else {}
        tensors: dict[str, TensorEntry] = {}
        for name in sorted(unmoved):
            assert base is not None
            tensors[name] = sheet.keep(base, name)
        for name, tensor in snapshot.tensors.items():
            entry = known.get(name)
            alike = entry is not None and (entry.dtype, entry.shape) == (tensor.dtype, tensor.shape)
            tensors[name] = sheet.add(name, tensor, base if alike else None)
        manifest = Manifest(
            format=STORE_FORMAT,
            fingerprint=snapshot.fingerprint,
            schema=snapshot.schema,
            counters=dict(snapshot.counters),
            generations=tuple(sheet.generations),
            tensors=tensors,
        )
        return Written(manifest=manifest, chunks=tuple(sheet.chunks))

    def read(self, manifest: Manifest, chunks: Chunks) -> Snapshot:
        """The snapshot, every chunk checked. Raises CorruptMemory."""
        tensors = {name: self._read_tensor(manifest, name, chunks) for name in manifest.tensors}
        return Snapshot(
            fingerprint=manifest.fingerprint, schema=manifest.schema, tensors=tensors, counters=manifest.counters
        )

    def open(self, sealed: Buffer, place: bytes, what: str) -> Buffer:
        """A small sealed row. Raises CorruptMemory, which says ``what`` it was."""
        try:
            return self.sealer.open(sealed, place)
        except SealBroken as error:
            raise CorruptMemory(f"{what} failed its seal; roll back to an earlier version") from error

    def _read_tensor(self, manifest: Manifest, name: str, chunks: Chunks) -> TensorBytes:
        entry = manifest.tensors[name]
        opened: list[Buffer] = []
        for position, ref in enumerate(entry.chunks):
            generation = manifest.generations[ref.generation]
            place = self.binding.chunk(manifest.fingerprint, generation, name, position)
            sealed = chunks.get((generation, ref.number), b"")
            opened.append(self.open(sealed, place, f"chunk {position} of tensor {name!r}"))
        data = opened[0] if len(opened) == 1 else b"".join(opened)
        return TensorBytes(dtype=entry.dtype, shape=entry.shape, data=data)


class _Sheet:
    """A manifest being written: the generations it names so far, and its new chunks."""

    def __init__(self, codec: Codec, fingerprint: str, generation: str) -> None:
        self._codec = codec
        self._fingerprint = fingerprint
        self._own = generation
        self.generations: list[str] = []
        self.chunks: list[bytes] = []

    def keep(self, base: Manifest, name: str) -> TensorEntry:
        """The base's tensor as it is; the very same entry when its generations stand where they stood."""
        entry = base.tensors[name]
        if all(self._position(base.generations[i]) == i for i in {ref.generation for ref in entry.chunks}):
            return entry
        kept = tuple(self._take_over(base, ref) for ref in entry.chunks)
        return TensorEntry(dtype=entry.dtype, shape=entry.shape, chunks=kept)

    def add(self, name: str, tensor: TensorBytes, base: Manifest | None) -> TensorEntry:
        """A tensor, of which chunks that equal the base's are not written again."""
        before = base.tensors[name].chunks if base else ()
        refs: list[ChunkRef] = []
        for position, chunk in enumerate(tensor.chunks()):
            digest = hashlib.sha256(chunk).digest()
            if base and position < len(before) and before[position].digest == digest:
                refs.append(self._take_over(base, before[position]))
            else:
                refs.append(self._write(name, position, chunk, digest))
        return TensorEntry(dtype=tensor.dtype, shape=tensor.shape, chunks=tuple(refs))

    def _write(self, name: str, position: int, chunk: memoryview, digest: bytes) -> ChunkRef:
        place = self._codec.binding.chunk(self._fingerprint, self._own, name, position)
        self.chunks.append(self._codec.sealer.seal(chunk, place))
        return ChunkRef(digest=digest, generation=self._position(self._own), number=len(self.chunks) - 1)

    def _take_over(self, base: Manifest, ref: ChunkRef) -> ChunkRef:
        generation = self._position(base.generations[ref.generation])
        return ChunkRef(digest=ref.digest, generation=generation, number=ref.number)

    def _position(self, generation: str) -> int:
        if generation not in self.generations:
            self.generations.append(generation)
        return self.generations.index(generation)


def _check_unmoved(snapshot: Snapshot, base: Manifest | None, unmoved: frozenset[str]) -> None:
    held = base.tensors.keys() if base else set()
    if missing := sorted(unmoved - held):
        raise ValueError(f"tensors {missing} are given as unmoved, but the base version does not hold them")
    if twice := sorted(unmoved & snapshot.tensors.keys()):
        raise ValueError(f"tensors {twice} are given as unmoved and as moved; give each once")
