"""Tensors as the store keeps them, and back; the only place where torch meets stored bytes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hope_serve.engine.adapter import Learned
from hope_serve.errors import FailedPrecondition
from hope_serve.memory.snapshot import Counter, Snapshot, TensorBytes
from hope_serve.model.cms_state import Cadence, CmsState
from hope_serve.model.hope import HopeModel
from hope_serve.model.state import SequenceState

MEMORY_SCHEMA = 1
SESSION_SCHEMA = 1


class TensorCodec:
    """Turns a model's memories and conversations into snapshots and back.

    A memory's values are rounded to the model's ``memory_dtype`` before anybody reads them, so that a memory that
    was never stored and one that was restored agree bit for bit.
    """

    def __init__(self, model: HopeModel, fingerprint: str) -> None:
        self._model, self._fingerprint = model, fingerprint
        self._dtype: torch.dtype = getattr(torch, model.config.memory_dtype)
        levels = (model.config.levels[i] for i in model.config.online_levels)
        self._chunk_sizes = tuple(level.chunk_size for level in levels)
        self._device = model.embedding.device

    def blank(self) -> Learned:
        """A memory that has learned nothing."""
        cadence = Cadence(chunk_sizes=self._chunk_sizes)
        return Learned(cms=CmsState.fresh(self._model, 1), cadence=cadence)

    def rounded(self, learned: Learned) -> Learned:
        """The memory as it will read once it was stored.

        Raises:
            FailedPrecondition: a value is not finite, or too large for the memory's dtype.
        """
        cms = learned.cms.map(lambda t: t.detach().to(self._dtype).float())
        for name, tensor in cms.tensors().items():
            if not torch.isfinite(tensor).all():
                raise FailedPrecondition(
                    f"the update makes {name} larger than {self._model.config.memory_dtype} can hold or not a number; "
                    "the memory is unchanged; send other text or a smaller learning_rate_scale",
                    reason="UPDATE_REFUSED",
                )
        return Learned(cms=cms, cadence=learned.cadence)

    def packed(self, learned: Learned) -> Learned:
        """The memory in its own dtype, to be kept: no value changes, since all were rounded to it."""
        return Learned(cms=learned.cms.map(lambda t: t.to(self._dtype)), cadence=learned.cadence)

    def unpacked(self, learned: Learned) -> Learned:
        """A packed memory, to be learned on."""
        return Learned(cms=learned.cms.map(lambda t: t.float()), cadence=learned.cadence)

    def memory_to_snapshot(
        self, learned: Learned, base: Learned | None, counters: Mapping[str, Counter]
    ) -> tuple[Snapshot, frozenset[str]]:
        """The snapshot to commit over ``base``, and the names of the tensors that stayed as they are.

        A level that did not fire keeps its delta and its optimizer's tensors; an empty accumulator is not stored.
        """
        moved = self._moved(learned, base)
        named = {n: t for n, t in learned.cms.tensors().items() if self._is_kept(n, learned.cadence)}
        unmoved = frozenset(name for name in named if name not in moved)
        snapshot = Snapshot(
            fingerprint=self._fingerprint,
            schema=MEMORY_SCHEMA,
            tensors={n: to_bytes(t, self._dtype) for n, t in named.items() if n in moved},
            counters={**counters, "tokens": learned.cadence.tokens},
        )
        return snapshot, unmoved

    def memory_from_snapshot(self, snapshot: Snapshot) -> Learned:
        """The memory of a stored snapshot.

        Raises:
            FailedPrecondition: the snapshot's layout is newer than this release.
        """
        _check_schema(snapshot.schema, MEMORY_SCHEMA, "memory")
        cadence = Cadence(chunk_sizes=self._chunk_sizes, tokens=int(snapshot.counters["tokens"]))
        blank = self.blank().cms
        stored = {name: from_bytes(t).float().to(self._device) for name, t in snapshot.tensors.items()}
        return Learned(cms=blank.with_tensors(blank.tensors() | stored), cadence=cadence)

    def check(self, snapshot: Snapshot) -> None:
        """Refuse a memory from elsewhere that this model could not run.

        Raises:
            FailedPrecondition: naming the counter or tensor that does not fit.
        """
        _check_schema(snapshot.schema, MEMORY_SCHEMA, "memory")
        tokens = snapshot.counters.get("tokens")
        if not isinstance(tokens, int) or tokens < 0:
            raise _misfit(f"its counter 'tokens' is {tokens!r}; it must be a number of tokens")
        cadence = Cadence(chunk_sizes=self._chunk_sizes, tokens=tokens)
        shapes = {n: tuple(t.shape) for n, t in self.blank().cms.tensors().items() if self._is_kept(n, cadence)}
        if odd := sorted(shapes.keys() ^ snapshot.tensors.keys()):
            raise _misfit(f"it has {len(snapshot.tensors)} tensors, and {odd[0]!r} is missing or not the model's")
        dtype = str(self._dtype).removeprefix("torch.")
        for name, tensor in snapshot.tensors.items():
            if (tensor.dtype, tensor.shape) != (dtype, shapes[name]):
                raise _misfit(f"tensor {name!r} is {tensor.dtype} {tensor.shape}, not {dtype} {shapes[name]}")
            if not torch.isfinite(from_bytes(tensor)).all():
                raise _misfit(f"tensor {name!r} holds values that are not numbers")

    def session_to_snapshot(self, state: SequenceState, counters: Mapping[str, Counter]) -> Snapshot:
        """A conversation's state, in full precision."""
        tensors = {name: to_bytes(t, t.dtype) for name, t in state.tensors().items()}
        return Snapshot(fingerprint=self._fingerprint, schema=SESSION_SCHEMA, tensors=tensors, counters=counters)

    def session_from_snapshot(self, snapshot: Snapshot) -> SequenceState:
        """The state of a stored conversation.

        Raises:
            FailedPrecondition: the snapshot's layout is newer than this release.
        """
        _check_schema(snapshot.schema, SESSION_SCHEMA, "session")
        blank = self._model.fresh_state(1)
        return blank.with_tensors({n: from_bytes(snapshot.tensors[n]).to(self._device) for n in blank.tensors()})

    @property
    def memory_bytes(self) -> int:
        """Bytes of one memory, open accumulators included."""
        return sum(t.numel() * self._dtype.itemsize for t in self.blank().cms.tensors().values())

    @property
    def warm_bytes(self) -> int:
        """Bytes of one memory that is ready to run: packed, and the deltas that generation reads."""
        deltas = (tensor for level in self.blank().cms.levels for tensor in level.delta)
        return self.memory_bytes + sum(t.numel() * t.element_size() for t in deltas)

    def _moved(self, learned: Learned, base: Learned | None) -> set[str]:
        names = learned.cms.tensors()
        if base is None:
            return set(names)
        pairs = zip(learned.cadence.updates(), base.cadence.updates(), strict=True)
        still = {f"{i}." for i, (now, then) in enumerate(pairs) if now == then}
        return {n for n in names if ".gradient." in n or not any(n.startswith(level) for level in still)}

    def _is_kept(self, name: str, cadence: Cadence) -> bool:
        level, part, _ = name.split(".")
        return part != "gradient" or cadence.tokens % cadence.chunk_sizes[int(level)] != 0


def to_bytes(tensor: Tensor, dtype: torch.dtype) -> TensorBytes:
    """A tensor's values in ``dtype``, row-major."""
    flat = tensor.detach().to("cpu", dtype).contiguous()
    name = str(dtype).removeprefix("torch.")
    return TensorBytes(dtype=name, shape=tuple(flat.shape), data=flat.reshape(-1).view(torch.uint8).numpy().data)


def from_bytes(stored: TensorBytes) -> Tensor:
    """The tensor of stored values, on the CPU."""
    dtype: torch.dtype = getattr(torch, stored.dtype)
    return torch.frombuffer(bytearray(stored.data), dtype=dtype).view(stored.shape)


def _misfit(message: str) -> FailedPrecondition:
    return FailedPrecondition(f"the memory does not fit the served model: {message}", reason="OTHER_LAYOUT")


def _check_schema(found: int, known: int, what: str) -> None:
    if found > known:
        raise FailedPrecondition(
            f"the {what}'s layout is {found}, newer than the {known} this release reads; upgrade the server",
            reason="NEWER_SCHEMA",
        )
