"""Memories and conversations as the store keeps them, and back; the only place where torch meets stored bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hope_serve.api import LevelReport
from hope_serve.engine.memory import Learned, MemoryForm
from hope_serve.engine.reports import level_reports, update_norm
from hope_serve.engine.sessions import SessionForm
from hope_serve.errors import FailedPrecondition
from hope_serve.memory.snapshot import Counter, Snapshot, TensorBytes
from hope_serve.model.cadence import Cadence
from hope_serve.model.cms_state import CmsState

MEMORY_SCHEMA = 1
SESSION_SCHEMA = 1


class Snapshots:
    """Turns one model's memories and conversations into snapshots and back.

    Args:
        sessions: what a conversation is kept as.
    """

    def __init__(self, form: MemoryForm, sessions: SessionForm, fingerprint: str) -> None:
        self.form, self._sessions, self._fingerprint = form, sessions, fingerprint
        self.memory_bytes, self.warm_bytes = form.memory_bytes, form.warm_bytes

    def blank(self) -> Learned:
        """A memory that has learned nothing."""
        return self.form.blank()

    def levels(self, learned: Learned) -> tuple[LevelReport, ...]:
        """Updates and drift of every online level."""
        return level_reports(learned)

    def updates(self, learned: Learned, base: Learned | None) -> Mapping[int, int]:
        """Updates of each online level since ``base``, by the level's number in the model."""
        before = base.cadence.updates() if base else self.form.cadence(0).updates()
        levels = zip(self.form.config.online_levels, learned.cadence.updates(), before, strict=True)
        return {level: now - then for level, now, then in levels}

    def distance(self, learned: Learned, base: Learned | None) -> float:
        """Norm of the change that made ``learned`` of ``base``; None is a memory that has learned nothing."""
        return update_norm(base or self.blank(), learned)

    def of_memory(
        self, learned: Learned, base: Learned | None, counters: Mapping[str, Counter]
    ) -> tuple[Snapshot, frozenset[str]]:
        """The snapshot to commit over ``base``, and the names of the tensors that stayed as they are.

        A level that did not fire keeps its delta and its optimizer's tensors; an empty accumulator is not stored.
        """
        moved = _moved(learned, base)
        named = {n: t for n, t in learned.cms.tensors().items() if _is_kept(n, learned.cadence)}
        unmoved = frozenset(name for name in named if name not in moved)
        snapshot = Snapshot(
            fingerprint=self._fingerprint,
            schema=MEMORY_SCHEMA,
            tensors={n: to_bytes(t) for n, t in named.items() if n in moved},
            counters={**counters, **_places(learned.cadence)},
        )
        return snapshot, unmoved

    def memory(self, snapshot: Snapshot) -> Learned:
        """The memory of a stored snapshot.

        Raises:
            FailedPrecondition: the snapshot's layout is newer than this release.
        """
        _check_schema(snapshot.schema, MEMORY_SCHEMA, "memory")
        blank = self.form.blank()
        stored = {name: from_bytes(t).to(self.form.dtype) for name, t in snapshot.tensors.items()}
        return Learned(
            form=self.form,
            cms=CmsState.of(self.form.config, blank.cms.tensors() | stored),
            cadence=self._cadence(snapshot.counters),
        )

    def check(self, snapshot: Snapshot) -> None:
        """Refuse a memory from elsewhere that this model could not run.

        Raises:
            FailedPrecondition: naming the counter or tensor that does not fit.
        """
        _check_schema(snapshot.schema, MEMORY_SCHEMA, "memory")
        for name in _places(self.form.cadence(0)):
            count = snapshot.counters.get(name)
            if not isinstance(count, int) or count < 0:
                raise _misfit(f"its counter {name!r} is {count!r}; it must be a number of tokens")
        cadence = self._cadence(snapshot.counters)
        shapes = {n: (1, *shape) for n, shape in self.form.shapes.items() if _is_kept(n, cadence)}
        if odd := sorted(shapes.keys() ^ snapshot.tensors.keys()):
            raise _misfit(f"it has {len(snapshot.tensors)} tensors, and {odd[0]!r} is missing or not the model's")
        dtype = str(self.form.dtype).removeprefix("torch.")
        for name, tensor in snapshot.tensors.items():
            if (tensor.dtype, tensor.shape) != (dtype, shapes[name]):
                raise _misfit(f"tensor {name!r} is {tensor.dtype} {tensor.shape}, not {dtype} {shapes[name]}")
            if not torch.isfinite(from_bytes(tensor)).all():
                raise _misfit(f"tensor {name!r} holds values that are not numbers")

    def _cadence(self, counters: Mapping[str, Counter]) -> Cadence:
        return self.form.cadence(**{name: int(counters[name]) for name in _places(self.form.cadence(0))})

    def of_session(self, state: Any, counters: Mapping[str, Counter]) -> Snapshot:
        """A conversation's state, in full precision."""
        tensors = {name: to_bytes(t) for name, t in self._sessions.tensors(state).items()}
        return Snapshot(fingerprint=self._fingerprint, schema=SESSION_SCHEMA, tensors=tensors, counters=counters)

    def session(self, snapshot: Snapshot) -> Any:
        """The state of a stored conversation, as a sequence begins with it.

        Raises:
            FailedPrecondition: the snapshot's layout is newer than this release.
        """
        _check_schema(snapshot.schema, SESSION_SCHEMA, "session")
        return self._sessions.state({name: from_bytes(t) for name, t in snapshot.tensors.items()})


def _places(cadence: Cadence) -> dict[str, int]:
    """Counters from which the cadence comes back; only a model whose chunks close with a lesson leaves places empty."""
    return {"tokens": cadence.tokens} | ({"skipped": cadence.skipped} if cadence.closes else {})


def _moved(learned: Learned, base: Learned | None) -> set[str]:
    names = learned.cms.tensors()
    if base is None:
        return set(names)
    pairs = zip(learned.cadence.updates(), base.cadence.updates(), strict=True)
    still = {f"{i}." for i, (now, then) in enumerate(pairs) if now == then}
    return {n for n in names if ".gradient." in n or not any(n.startswith(level) for level in still)}


def _is_kept(name: str, cadence: Cadence) -> bool:
    level, part, _ = name.split(".")
    return part != "gradient" or cadence.open()[int(level)]


def to_bytes(tensor: Tensor) -> TensorBytes:
    """A tensor's values, row-major."""
    flat = tensor.detach().contiguous()
    name = str(flat.dtype).removeprefix("torch.")
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
