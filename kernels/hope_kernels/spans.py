"""Names for the parts of a step in a trace of torch's profiler; while none is taken they cost a look at a flag."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch.profiler import record_function

P = ParamSpec("P")
R = TypeVar("R")

SPANS = ("projections", "read", "project", "deltas", "commit", "norms", "conv", "sampling")
"""Parts of a decode step: products with shared weights; Titans' reading, its own projections and its writing, or
attention's over keys and values; what users have learned; the rest by name."""


def spanned(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function whose calls stand in a trace under ``name``, one of ``SPANS``."""
    if name not in SPANS:
        raise ValueError(f"name is {name!r}; it must be one of {', '.join(SPANS)}")

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if not torch._C._autograd._profiler_enabled():
                return function(*args, **kwargs)
            with record_function(name):
                return function(*args, **kwargs)

        return called

    return decorate
