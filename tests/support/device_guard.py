"""Watches every thread but the engine's own for tensors that live on the device."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hope_serve.engine.stepper import Stepper

ENGINE = "hope-engine"


class DeviceGuard(TorchDispatchMode):
    """Notes every operation of this thread on a tensor of the device: CUDA tensors, or the pools' own on a CPU."""

    def __init__(self, found: list[str], device: list) -> None:
        super().__init__()
        self._found, self._device = found, device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, Tensor) and (leaf.is_cuda or self._is_pools(leaf)):
                self._found.append(f"{threading.current_thread().name}: {func}")
        return func(*args, **(kwargs or {}))

    def _is_pools(self, tensor: Tensor) -> bool:
        return any(tensor.untyped_storage().data_ptr() == own for device in self._device for own in storages(device))


def storages(device) -> list[int]:
    """Where everything lies that slots and lessons hold."""
    pools, teaching = device.pools, device.teaching
    slabs = (pools.state, pools.delta_rows, teaching._learned, teaching._state, teaching._reads)
    tensors = [*(slab.rows for slab in slabs), pools.remembers, pools.last_token, *vars(pools.sampling).values()]
    return [tensor.untyped_storage().data_ptr() for tensor in tensors]


@contextmanager
def guarded_threads(monkeypatch):
    """``(found, devices)``: what this thread and all begun inside do to devices, and the devices that were made.

    The running loop's workers are begun anew, so that they are watched, too.
    """
    found: list[str] = []
    devices: list = []
    begin, run = Stepper.__init__, threading.Thread.run

    def noted(stepper, scheduler, device, meter):
        devices.append(device)
        begin(stepper, scheduler, device, meter)

    def watched(thread):
        if thread.name == ENGINE:
            return run(thread)
        with DeviceGuard(found, devices):
            return run(thread)

    monkeypatch.setattr(Stepper, "__init__", noted)
    monkeypatch.setattr(threading.Thread, "run", watched)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="worker"))
    with DeviceGuard(found, devices):
        yield found, devices
