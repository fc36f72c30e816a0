"""Faults that no caller can bring about, planted in a real engine."""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager

import torch

CURSED = 77
"""A token that ``cursed`` models cannot read."""


@contextmanager
def cursed(model, fault):
    """A model whose first block meets ``fault`` wherever it reads CURSED: an exception to raise, or a value."""
    row = model.embedding[CURSED].clone()

    def meet(_, arguments):
        h, *rest = arguments
        found = (h == row).all(-1)
        if not found.any():
            return None
        if isinstance(fault, float):
            return (torch.where(found[..., None], fault, h), *rest)
        raise fault

    hook = model.blocks[0].register_forward_pre_hook(meet)
    try:
        yield
    finally:
        hook.remove()


def end_engine_thread() -> None:
    """Let the engine's thread meet something that is no ordinary exception, where it next runs Python code."""
    ids = [thread.ident for thread in threading.enumerate() if thread.name == "hope-engine"]
    assert len(ids) == 1, ids
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ids[0]), ctypes.py_object(SystemExit))
