"""Device memory of running sequences: one row a slot in every state tensor. Slot 0 belongs to nobody."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hope_serve.model.cms import Delta
from hope_serve.model.cms_state import CmsState
from hope_serve.model.hope import Deltas, HopeModel
from hope_serve.model.state import SequenceState


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some slots as one batch. ``in_place``: the tensors are views, so what is written to them is in the pool."""

    slots: list[int]
    state: SequenceState
    deltas: Deltas | None
    in_place: bool


class SlotPool:
    """State and memory of up to ``num_slots`` sequences.

    Used slots are always 1..n: a hole is closed by moving the last row into it, so that a batch of all of them
    is a view and costs no copy.
    """

    def __init__(self, model: HopeModel, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}; it must be at least 1")
        self.num_slots = num_slots
        self._state = _writable(model.fresh_state(num_slots + 1))
        self._fresh = model.fresh_state(1)
        blank = CmsState.fresh(model, num_slots + 1)
        self._deltas: Deltas = tuple(level.delta for level in blank.levels)
        self._remembers = [False] * (num_slots + 1)
        self._owners: list[object] = [None]

    @property
    def num_used(self) -> int:
        """Slots taken."""
        return len(self._owners) - 1

    @property
    def num_free(self) -> int:
        """Slots left."""
        return self.num_slots - self.num_used

    def take(self, owner: object) -> int:
        """A slot for ``owner``, holding a fresh state and no memory."""
        if not self.num_free:
            raise RuntimeError("no slot is free; the scheduler counts them")
        self._owners.append(owner)
        slot = len(self._owners) - 1
        self.load(slot, None, None)
        return slot

    def release(self, slot: int) -> object | None:
        """Free a slot; returns the owner that moved into it, if one did."""
        last = len(self._owners) - 1
        mover = self._owners[last] if slot != last else None
        if mover is not None:
            self.copy(last, slot)
            self._owners[slot] = mover
        self._owners.pop()
        return mover

    def load(self, slot: int, state: SequenceState | None, deltas: Deltas | None) -> None:
        """Put a sequence's state (None: fresh) and memory (None: none) into a slot."""
        source = (state or self._fresh).tensors()
        for name, pool in self._state.tensors().items():
            pool[slot] = source[name][0]
        for i, pool_delta in enumerate(self._deltas):
            for side, pool in enumerate(pool_delta):
                pool[slot] = deltas[i][side][0] if deltas else 0.0
        self._remembers[slot] = deltas is not None

    def copy(self, source: int, target: int) -> None:
        """Make one slot the twin of another."""
        for pool in (*self._state.tensors().values(), *(t for delta in self._deltas for t in delta)):
            pool[target] = pool[source]
        self._remembers[target] = self._remembers[source]

    def extract(self, slot: int) -> SequenceState:
        """A slot's state as a batch of one, on its own memory."""
        return self._state.with_tensors({n: t[slot : slot + 1].clone() for n, t in self._state.tensors().items()})

    def rows(self, slots: list[int]) -> Rows:
        """The slots as a batch, in this order: views of the pool where possible, else copies (see ``write``)."""
        remember = any(self._remembers[slot] for slot in slots)
        first, count = slots[0], len(slots)
        is_run = slots == list(range(first, first + count))
        index = slice(first, first + count) if is_run else torch.tensor(slots)
        state = self._state.with_tensors({n: t[index] for n, t in self._state.tensors().items()})
        deltas = tuple(Delta(d.inner[index], d.outer[index]) for d in self._deltas)
        return Rows(slots=slots, state=state, deltas=deltas if remember else None, in_place=is_run)

    def write(self, rows: Rows, state: SequenceState) -> None:
        """Store what a batch's state has become; tensors that are still the batch's own need no writing."""
        index, old = torch.tensor(rows.slots), rows.state.tensors()
        new = state.tensors()
        for name, pool in self._state.tensors().items():
            if new[name] is not old[name] or not rows.in_place:
                pool[index.to(pool.device)] = new[name]


def _writable(state: SequenceState) -> SequenceState:
    """Fresh states may share memory between rows; a pool must not."""
    return state.with_tensors({name: tensor.contiguous() for name, tensor in state.tensors().items()})
