"""How many of the host's cores compute one pass of a model on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_PASS_TOKENS = 32
"""Tokens of a pass whose products are too small to be worth every core."""


class IntraOpThreads:
    """Leaves a core to others while a pass is small.

    A token of every sequence is a thousand small products, and each waits for the last of its threads. Where the event
    loop, a client or another process has one of the cores, that is the thread which shares it: with all of two cores
    one stream of hope-demo drew 115 tokens a second and 16 drew 292, with one core 180 and 554. Prompts and lessons are
    long products, which every core shortens.

    Args:
        constant: every pass is computed by the same number, as the last bits of a sum may hang on it.
    """

    def __init__(self, *, constant: bool) -> None:
        self._all = torch.get_num_threads()
        takes_every_core = self._all >= len(os.sched_getaffinity(0))
        self._few = self._all if constant or not takes_every_core else max(1, self._all - 1)

    @contextmanager
    def of(self, num_tokens: int) -> Iterator[None]:
        """While it lasts, the calling thread's operations run on as many cores as a pass of so many tokens is worth."""
        if num_tokens > SMALL_PASS_TOKENS or self._few == self._all:
            yield
            return
        torch.set_num_threads(self._few)
        try:
            yield
        finally:
            torch.set_num_threads(self._all)
