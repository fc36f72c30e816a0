"""Which slot belongs to whom, and which memory a slot still holds. No model code."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any


class SlotTable:
    """Slots 1 to ``num_slots``; slot 0 is nobody's.

    A free slot keeps the memory that was read last through it, so that its user's next request need not bring it
    again; the slot that has been free longest is given away first.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots is {num_slots}; it must be at least 1")
        self.num_slots = num_slots
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_slots + 1))
        self._owners: dict[int, object] = {}
        self._memories: dict[int, Any] = {}

    @property
    def num_used(self) -> int:
        """Slots taken."""
        return len(self._owners)

    @property
    def num_free(self) -> int:
        """Slots left."""
        return len(self._free)

    def take(self, owner: object, memory: Any) -> tuple[int, bool]:
        """A slot for ``owner``, and whether it holds ``memory`` already; None is no memory, of zeros."""
        if not self._free:
            raise RuntimeError("no slot is free; the scheduler counts them")
        alike = (s for s in self._free if self._memories.get(s) is memory)
        # A slot without a memory loses nothing by being taken.
        empty = (s for s in self._free if s not in self._memories)
        slot = next(alike, 0) or next(empty, 0) or next(iter(self._free))
        held = self._memories.get(slot) is memory
        del self._free[slot]
        self._owners[slot] = owner
        self._memories.pop(slot, None)
        if memory is not None:
            self._memories[slot] = memory
        return slot, held

    def release(self, slot: int, owner: object) -> None:
        """Give a slot back."""
        assert self._owners.get(slot) is owner, "a slot is given back by whoever took it"
        del self._owners[slot]
        self._free[slot] = None

    def forget(self, memory: Any) -> None:
        """Hold a memory no longer, in any free slot."""
        for slot in [s for s, held in self._memories.items() if held is memory and s not in self._owners]:
            del self._memories[slot]
