"""What is seen from outside while it runs: memory of every process, pods, saturation."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

import psutil

MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """One look. Sizes are MiB; ``others`` is the mean of the pods that came later."""

    at: float
    num_pods: int
    stayed: float
    others: float
    store: float
    users: float
    saturation: float


class Watch:
    """``samples``: what was seen, in order."""

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self._stayed = stack.pods[0].pid
        self.samples: list[Sample] = []

    async def run(self, every_seconds: float) -> None:
        """Until cancelled."""
        while True:
            self.samples.append(await asyncio.to_thread(self._look))
            await asyncio.sleep(every_seconds)

    def growth(self) -> float:
        """The pod that stayed: its median over the last fifth of the run, over that of the second fifth."""
        sizes = [sample.stayed for sample in self.samples]
        fifth = max(1, len(sizes) // 5)
        return statistics.median(sizes[-fifth:]) / statistics.median(sizes[fifth : 2 * fifth] or sizes)

    def store_growth(self) -> float:
        """The same of the store's data."""
        sizes = [sample.store for sample in self.samples]
        fifth = max(1, len(sizes) // 5)
        return statistics.median(sizes[-fifth:]) / statistics.median(sizes[fifth : 2 * fifth] or sizes)

    def _look(self) -> Sample:
        sizes = {pod.pid: _resident(pod.pid) for pod in list(self._stack.pods)}
        stayed = sizes.pop(self._stayed)
        others = [size for size in sizes.values() if size]
        full = self._stack.prometheus.query("max(hope_saturation)")
        return Sample(
            at=time.monotonic(),
            num_pods=1 + len(others),
            stayed=stayed,
            others=statistics.mean(others) if others else 0.0,
            store=self._used(),
            users=_resident(psutil.Process().pid),
            saturation=max(full.values(), default=0.0),
        )

    def _used(self) -> float:
        text = self._stack.redis.command("INFO", "memory").decode()
        return int(text.partition("used_memory:")[2].partition("\r")[0]) / MIB


def _resident(pid: int) -> float:
    """MiB; 0 for a process that is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / MIB
    except psutil.NoSuchProcess:
        return 0.0
