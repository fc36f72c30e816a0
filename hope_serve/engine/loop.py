"""The engine's thread: it alone touches the device, and takes one step after the other while there is work."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from hope_serve.engine.meter import Meter
from hope_serve.engine.scheduler import Scheduler
from hope_serve.engine.sequence import Sequence
from hope_serve.engine.stepper import tell
from hope_serve.errors import Unavailable

IDLE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Steps(Protocol):
    """What takes the scheduler's sequences forward."""

    def step(self) -> None:
        """Compute what is next for everybody, if anything is."""
        ...


class Stuck(Exception):
    """The engine's thread does not come round."""


class EngineLoop:
    """Other threads only submit and cancel; answers come through ``Sequence.listener``.

    The loop ends when it is told to, when the device is lost or the loop is at fault, or when it is given up because
    it does not come round; then everybody is refused, and ``failure`` says why.

    Args:
        make: makes what lives on the device, on the loop's thread.
    """

    def __init__(self, scheduler: Scheduler, make: Callable[[Scheduler, Meter], Steps], meter: Meter) -> None:
        self._scheduler, self._make, self._meter = scheduler, make, meter
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._thread = threading.Thread(target=self._main, name="hope-engine", daemon=True)
        self._last_step = time.monotonic()
        self._stopping = self._ended = False
        self._ready = threading.Event()
        self._on_end: Callable[[], object] = lambda: None
        self.failure: BaseException | None = None

    def start(self, on_end: Callable[[], object]) -> None:
        """Start the thread, which calls ``on_end`` last, and wait until the device is ready.

        Raises:
            BaseException: what kept it from becoming ready.
        """
        self._on_end = on_end
        self._thread.start()
        self._ready.wait()
        if self.failure:
            raise self.failure

    def submit(self, sequence: Sequence) -> None:
        """Hand over a sequence; from now on only the engine's thread changes it.

        Raises:
            Exhausted, DeadlineExceeded: the scheduler does not admit it.
            Unavailable: the loop has ended.
        """
        with self._door:
            if self._ended:
                raise _stopped()
            self._scheduler.admit(sequence)
            self._inbox.put(sequence)

    def wake(self) -> None:
        """Let the thread look again, after a cancellation."""
        self._inbox.put(None)

    def stop(self) -> None:
        """End the thread after its current step; one that was given up is not waited for."""
        self._stopping = True
        self.wake()
        if self._thread.ident and not isinstance(self.failure, Stuck):
            self._thread.join()

    def give_up(self) -> None:
        """Take the thread for lost, in a step that does not end. What it still does reaches nobody."""
        self._stopping = True
        self.failure = Stuck(f"the engine has been in one step for {self.seconds_since_step:.0f} s")
        log.critical("%s; it is taken for lost", self.failure)
        self._refuse_everybody()

    @property
    def seconds_since_step(self) -> float:
        """Seconds since the thread last came round; grows when it is stuck or dead."""
        return time.monotonic() - self._last_step

    def _main(self) -> None:
        try:
            steps = self._make(self._scheduler, self._meter)
            self._last_step = time.monotonic()
            self._ready.set()
            while not self._stopping:
                self._receive()
                steps.step()
                self._last_step = time.monotonic()
        except BaseException as error:
            self.failure = self.failure or error
            log.critical("the engine's thread ended", exc_info=error)
        finally:
            self._ready.set()
            self._refuse_everybody()

    def _refuse_everybody(self) -> None:
        with self._door:
            self._ended = True
        self._take_in()
        for sequence in [*self._scheduler.waiting, *self._scheduler.running]:
            self._scheduler.remove(sequence)
            tell(sequence, error=_stopped())
        self._meter.show()
        self._on_end()

    def _take_in(self) -> None:
        while not self._inbox.empty():
            if sequence := self._inbox.get_nowait():
                self._scheduler.add(sequence)

    def _receive(self) -> None:
        """Take in what was submitted; wait for it when there is nothing else to do."""
        if self._scheduler.idle:
            try:
                sequence = self._inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                return
            if sequence:
                self._scheduler.add(sequence)
        self._take_in()


def _stopped() -> Unavailable:
    return Unavailable("the engine stopped; another server can take the request", reason="ENGINE_STOPPED")
