"""Faults that no caller can bring about, planted in a real engine."""

from __future__ import annotations

import ctypes
import threading
import time
from contextlib import contextmanager

import torch

from hope_serve.engine.stepper import Stepper
from hope_serve.model.serving.titans import ServedTitans

CURSED = 77
"""A token that ``cursed`` models cannot read."""


@contextmanager
def cursed(fault):
    """Served models whose every layer meets ``fault`` where it reads CURSED: an exception to raise, or a value."""
    whole = ServedTitans.run

    def meet(self, x, batch, *rest):
        found = batch.tokens == CURSED
        if not found.any():
            return whole(self, x, batch, *rest)
        if isinstance(fault, float):
            return whole(self, torch.where(found[:, None], fault, x), batch, *rest)
        raise fault

    ServedTitans.run = meet
    try:
        yield
    finally:
        ServedTitans.run = whole


def end_engine_thread() -> None:
    """Let the engine's thread meet something that is no ordinary exception, where it next runs Python code."""
    ids = [thread.ident for thread in threading.enumerate() if thread.name == "hope-engine"]
    assert len(ids) == 1, ids
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ids[0]), ctypes.py_object(SystemExit))


def stick_engine_thread() -> None:
    """Let every engine's next step never end, as when a device hangs."""

    def never_ends(_):
        while True:
            time.sleep(3600)

    Stepper.step = never_ends
