"""Pods behind links that fail: killed and started again, replies lost, links that stall."""

import asyncio
import random

from support.ports import free_port
from support.redis_proxy import Proxy

DROP_SHARE = 0.05
STALL_SECONDS = (0.1, 2.0)
START_SECONDS = 60


class Pods:
    """Server processes on one store, each with a link of its own to it and a port that stays the same."""

    def __init__(self, nursery, folder, *, count, redis_port, checkpoint):
        self._nursery = nursery
        self._folder = folder
        self._redis_port = redis_port
        self._checkpoint = checkpoint
        self._draw = random.Random(1)
        self._pids = [0] * count
        self._up = [asyncio.Event() for _ in range(count)]
        self._died = [asyncio.Event() for _ in range(count)]
        self._links = []
        self._tasks = set()
        self.targets = [f"127.0.0.1:{free_port()}" for _ in range(count)]
        self.crashes = []
        self.kills = 0
        self.stalls = 0

    @property
    def dropped(self):
        """Replies that were lost after the store had done what was asked."""
        return sum(link.dropped for link in self._links)

    async def start(self):
        """All pods, on good links."""
        for number in range(len(self.targets)):
            self._links.append(await Proxy(self._redis_port, seed=number).start())
            self._spawn(self._keep(number))
        await self._all_up()
        return self

    def begin_storm(self, *, kill_every):
        """Links begin to fail; pods begin to die, one at a time."""
        for link in self._links:
            link.drop_share = DROP_SHARE
        self._storm = [self._spawn(self._kill_pods(kill_every)), self._spawn(self._stall_links())]

    async def end_storm(self):
        """No more faults; every pod is up again."""
        for task in self._storm:
            task.cancel()
        await asyncio.wait(self._storm)
        for link in self._links:
            link.drop_share = 0.0
            link.black_hole = False
        await self._all_up()

    async def close(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            await link.close()

    async def _keep(self, number):
        """Start the pod whenever it is not there."""
        options = {
            "listen": self.targets[number],
            "metrics_listen": "127.0.0.1:0",
            "checkpoint": self._checkpoint,
            "memory": f"redis://127.0.0.1:{self._links[number].port}",
        }
        while True:
            try:
                self._pids[number], _ = await self._nursery.start(self._folder / f"pod{number}.log", **options)
            except ChildProcessError as ended:
                if "UNAVAILABLE" not in str(ended):  # the store did not answer: it is started again
                    self.crashes.append(str(ended))
                continue
            self._up[number].set()
            await self._died[number].wait()
            self._died[number].clear()

    async def _kill_pods(self, every):
        while True:
            await asyncio.sleep(every)
            if up := [number for number, event in enumerate(self._up) if event.is_set()]:
                number = self._draw.choice(up)
                self._up[number].clear()
                self._nursery.kill(self._pids[number])
                self._died[number].set()
                self.kills += 1

    async def _stall_links(self):
        while True:
            await asyncio.sleep(self._draw.uniform(*STALL_SECONDS))
            link = self._draw.choice(self._links)
            link.black_hole = True
            self.stalls += 1
            await asyncio.sleep(self._draw.uniform(*STALL_SECONDS))
            link.black_hole = False

    async def _all_up(self):
        async with asyncio.timeout(START_SECONDS):
            await asyncio.gather(*(event.wait() for event in self._up))

    def _spawn(self, coroutine):
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        return task
