"""What one pass through the model computes: rows of tokens, and the slots that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B sequences by slot, their N tokens behind each other.

    tokens: [N] int64. slots: [B] int32, all different but for 0, which is padding: it changes nothing.
    starts: [B + 1] int32, sequence b has rows starts[b] to starts[b + 1]; None is one token each, N = B.
    memories: [B] int32, the slots of the memories that they read, in pools of their own; None: the same as ``slots``.
    remembers: [S] uint8 over the slots of memories, 0 where there is none to be read; None reads all but slot 0's.
    reads_memory: whether any of the sequences reads a memory.
    fills_chunk: for one token each, whether any sequence may end a chunk with it.
    """

    tokens: Tensor
    slots: Tensor
    starts: Tensor | None = None
    memories: Tensor | None = None
    remembers: Tensor | None = None
    reads_memory: bool = True
    fills_chunk: bool = True

    @property
    def memory_slots(self) -> Tensor:
        """[B] int32, where each sequence's memory lies."""
        return self.slots if self.memories is None else self.memories
