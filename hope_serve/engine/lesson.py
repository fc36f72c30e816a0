"""One adaptation in progress: which tokens come next, and what has been seen so far. No model code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hope_serve.api import AdaptOptions
from hope_serve.model.cadence import Cadence

REREAD_TOKENS = 1024
"""Tokens of a segment that only reads."""


@dataclass(eq=False, kw_only=True)
class Lesson:
    """Learns a document on top of ``before``, then reads it once more to see what that changed.

    A step is one segment, which ends where the fastest level fires; so the result depends on the document and the
    memory alone, never on who shares the engine.

    Attributes:
        started_at: where the memory's chunks stood before.
        before, after: what the memory is made of; ``after`` when ``finished``.
        nll_first, nll_after: the summed loss of every segment of the first reading, and of the last.
        norm_left: how far the updates may still go, of ``options.max_update_norm``.
    """

    tokens: tuple[int, ...]
    before: Any
    cadence: Cadence
    options: AdaptOptions
    after: Any = None
    at: int = 0
    slot: int = 0

    def __post_init__(self) -> None:
        self.started_at = self.cadence
        self.restart()

    def restart(self) -> None:
        """Begin the first reading again."""
        self.passes_left, self.norm_left = self.options.passes, self.options.max_update_norm
        self.cadence, self.after, self.at = self.started_at, None, 0
        self.rereading = self.clipped = False
        self.nll_first: list[float] = []
        self.nll_after: list[float] = []
        self.gradient_norms: list[float] = []

    @property
    def num_targets(self) -> int:
        """Tokens that one reading predicts."""
        return len(self.tokens) - 1

    @property
    def num_left(self) -> int:
        """Tokens still to be computed, all passes and the last reading included."""
        passes = self.passes_left + (0 if self.rereading else 1)
        return max(0, self.num_targets * passes - self.at)

    @property
    def finished(self) -> bool:
        """Whether every reading is done."""
        return self.rereading and self.at >= self.num_targets

    @property
    def in_first_pass(self) -> bool:
        """Whether the document is being read for the first time."""
        return not self.rereading and self.passes_left == self.options.passes

    def next_length(self) -> int:
        """Tokens of the next segment."""
        room = REREAD_TOKENS if self.rereading else self.cadence.room()
        return min(self.num_targets - self.at, room)

    def segment(self, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The next ``length`` tokens, and the token behind each."""
        end = self.at + length
        return self.tokens[self.at : end], self.tokens[self.at + 1 : end + 1]

    def cadence_after(self, length: int) -> Cadence:
        """Where the chunks stand once the next ``length`` tokens are learned."""
        after = self.cadence.after(length)
        return after.at_end() if self.at + length == self.num_targets else after

    def learned(self, length: int, *, gradient_norm: float, share: float, step_norm: float) -> None:
        """A segment was learned; ``share`` of its step, of ``step_norm``, was allowed."""
        self.gradient_norms.append(gradient_norm)
        self.norm_left -= share * step_norm
        self.clipped |= share < 1
        self.cadence = self.cadence_after(length)
        self.at += length

    def allowed_share(self, step_norm: float) -> float:
        """How much of a step the limit on all steps together leaves."""
        if not self.options.max_update_norm or not step_norm:
            return 1.0
        return min(1.0, self.norm_left / step_norm)

    def end_pass(self) -> None:
        """The document was read to its end; begin the next reading."""
        self.passes_left -= 1
        self.at = 0
        self.rereading = self.passes_left == 0

    @property
    def surprise(self) -> float:
        """Norm of all gradients, a token."""
        return math.hypot(*self.gradient_norms) / max(1, self.num_targets)
