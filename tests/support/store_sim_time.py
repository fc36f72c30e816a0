"""Virtual time: coroutines that wait for it, run one after the other, the same way for the same seed."""

import heapq
import itertools
import random
from unittest import mock


class Sim:
    """A clock and the tasks that wait for it."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        # Names that a store draws end up in sets, whose order decides who is asked first: they come of the seed, too.
        self.urandom = random.Random(f"names of {seed}").randbytes
        self.now = 0.0
        self._queue = []
        self._order = itertools.count()

    def spawn(self, coroutine):
        """Start a task; returns it."""
        task = Task(coroutine)
        self.wake(task, 0.0)
        return task

    def wake(self, task, delay, value=None):
        heapq.heappush(self._queue, (self.now + delay, next(self._order), task, task.sleeps, value))

    def run(self, until):
        """Run tasks until this time, or until none waits for it."""
        with mock.patch("os.urandom", self.urandom):
            self._run(until)

    def _run(self, until):
        while self._queue and self._queue[0][0] <= until:
            self.now, _, task, sleeps, value = heapq.heappop(self._queue)
            if not task.done and task.sleeps == sleeps:
                task.step(self, value)
        self.now = until

    def sleep(self, delay):
        return _Wait(delay, None)

    def wait(self, event, timeout):
        """Wait for an event; False when the time is over first."""
        return _Wait(timeout, event)

    def clock(self):
        """The time as a store reads it: Unix seconds."""
        return 1_800_000_000.0 + self.now


class Task:
    """A running coroutine. ``sleeps`` counts its waits, so that a wait that is over cannot wake it again."""

    def __init__(self, coroutine):
        self._coroutine = coroutine
        self.sleeps = 0
        self.done = False

    def step(self, sim, value):
        self.sleeps += 1
        try:
            wait = self._coroutine.send(value)
        except StopIteration:
            self.done = True
            return
        if wait.event is not None and wait.event.is_set:
            sim.wake(self, 0.0, True)
            return
        if wait.event is not None:
            wait.event.waiters.append((self, self.sleeps))
        sim.wake(self, wait.delay, wait.event is None)

    def kill(self):
        """The process is gone: nothing of it runs any more."""
        if not self.done:
            self.done = True
            self._coroutine.close()


class Event:
    """Something that happens once and carries a value."""

    def __init__(self):
        self.is_set = False
        self.value = None
        self.waiters = []

    def set(self, sim, value=None):
        self.is_set, self.value = True, value
        for task, sleeps in self.waiters:
            if not task.done and task.sleeps == sleeps:
                sim.wake(task, 0.0, True)
        self.waiters = []


class _Wait:
    def __init__(self, delay, event):
        self.delay = delay
        self.event = event

    def __await__(self):
        return (yield self)
