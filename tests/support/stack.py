"""Everything that a deployment has, on this machine: pods, Envoy, valkey, Prometheus, each of them real.

Run as ``python -m support.stack`` it starts them, prints where they are, and stops them at Ctrl-C.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from support.envoy import Envoy
from support.prometheus import Prometheus
from support.redis_server import RedisServer, free_port
from support.server_nursery import Nursery

from hope_serve.config import BUNDLED_CHECKPOINT
from hope_serve.memory.redis.make import install_functions

PODS = 3


@dataclass(frozen=True)
class Pod:
    """One server process."""

    pid: int
    target: str
    metrics: str


class Stack:
    """``async with``; what is started last is stopped first."""

    def __init__(self, folder, checkpoint=BUNDLED_CHECKPOINT, *, store=None, pods=None):
        """``store``: settings of the valkey. ``pods``: more options of ``hope-serve serve``."""
        self._folder, self._checkpoint = Path(folder), checkpoint
        self._options = pods or {}
        self._closing = AsyncExitStack()
        self._started = 0
        self.pods = []
        self.redis = RedisServer(self._folder / "redis", **store or {})
        self.envoy = Envoy(self._folder / "envoy")
        self.prometheus = Prometheus(self._folder / "prometheus")

    async def __aenter__(self):
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise
        return self

    async def __aexit__(self, *_):
        await self._closing.aclose()

    async def add_pod(self):
        """One more pod, known to everybody and in use."""
        pod = await self._new_pod()
        await self._set_pods([*self.pods, pod])
        return pod

    async def kill_pod(self, pod):
        """SIGKILL; nobody is told but by what they see themselves."""
        self._nursery.kill(pod.pid)

    async def forget_pod(self, pod):
        """It is gone, and everybody is told."""
        await self._set_pods([other for other in self.pods if other is not pod])

    async def replace_pod(self, old):
        """As a rolling restart does it: a new pod, then SIGTERM to the old one, which nobody is told of beforehand."""
        await self.add_pod()
        await self.retire_pod(old)

    async def retire_pod(self, pod):
        """SIGTERM, which nobody is told of before the pod is gone."""
        await self._nursery.stop(pod.pid)
        await self.forget_pod(pod)

    async def _start(self):
        self.redis.start()
        self._closing.callback(self.redis.kill)
        await install_functions(self.redis.url)
        self._nursery = Nursery()
        self._closing.callback(self._nursery.close)
        pods = [await self._new_pod() for _ in range(PODS)]
        self._closing.callback(self.envoy.close)
        await asyncio.to_thread(self.envoy.start, [pod.target for pod in pods])
        self._closing.callback(self.prometheus.close)
        await asyncio.to_thread(self.prometheus.start)
        await self._set_pods(pods)

    async def _new_pod(self):
        self._started += 1
        options = {
            "listen": "127.0.0.1:0",
            "metrics_listen": f"127.0.0.1:{free_port()}",
            "checkpoint": self._checkpoint,
            "memory": self.redis.url,
            **self._options,
        }
        while True:
            try:
                pid, target = await self._nursery.start(self._folder / f"pod-{self._started}.log", **options)
            except ChildProcessError as ended:
                if "UNAVAILABLE" not in str(ended):  # a busy machine: the store was too slow to answer
                    raise
            else:
                return Pod(pid, target, options["metrics_listen"])

    async def _set_pods(self, pods):
        self.pods = pods
        self.envoy.set_pods([pod.target for pod in pods])
        self.prometheus.set_pods([pod.metrics for pod in pods])
        await self.envoy.until_healthy(len(pods))


async def _show():
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with tempfile.TemporaryDirectory(prefix="hope-stack-") as folder:
        async with Stack(folder) as stack:
            print(f"calls       {stack.envoy.target} (hope-serve chat --target {stack.envoy.target} …)")
            for pod in stack.pods:
                print(f"pod         {pod.target}, metrics on http://{pod.metrics}/metrics")
            print(f"Prometheus  {stack.prometheus.url}")
            print(f"valkey      {stack.redis.url}")
            print(f"logs        {folder}; Ctrl-C stops everything", flush=True)
            await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_show())
