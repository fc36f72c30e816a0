"""Worker processes that are paused or killed at any moment, and the check of what they were told."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from support import store_worker

from hope_serve.memory.url import make_store

WORKER = Path(store_worker.__file__)


class Victim:
    """A worker process, what it asked for and what it was told, across its deaths."""

    def __init__(self, url, name):
        self._url, self._name = url, name
        self._lives = 0
        self.acknowledged = []
        self.pending = []

    def start(self):
        self._lives += 1
        retries = [f"{user}={request}" for user, request in self.pending]
        command = [sys.executable, str(WORKER), self._url, f"{self._name}.{self._lives}", *retries]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait_for_work(self):
        self._first = self._process.stdout.readline()

    async def pause(self, seconds):
        """SIGSTOP: it knows nothing of the time that it missed."""
        self._process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        rest = self._process.stdout.read()
        self._process.stdout.close()
        assert self._process.wait() == -signal.SIGKILL
        for line in (self._first + rest).splitlines():
            match line.split():
                case "ask", user, request:
                    self.pending = [*{*self.pending, (int(user), request)}]
                case "ack", user, request, version:
                    self.pending.remove((int(user), request))
                    self.acknowledged.append((int(user), request, int(version)))


async def check(url, victims):
    store = make_store(url)
    await store.open()
    acknowledged = [ack for victim in victims for ack in victim.acknowledged]
    pending = [ask for victim in victims for ask in victim.pending]
    assert len(acknowledged) > len(victims)
    for number, owner in enumerate(store_worker.USERS):
        reports = await store.versions(owner)
        if not reports:
            assert not [ack for ack in acknowledged if ack[0] == number]
            continue
        assert [report.version for report in reports] == list(range(1, len(reports) + 1))
        stored = await store.load(owner, fingerprint=store_worker.MODEL)
        applied = [report.request_id for report in reports]
        assert store_worker.applied(stored.snapshot) == applied[-201:]
        assert len(set(applied)) == len(applied), "applied twice"
        told = {request: version for user, request, version in acknowledged if user == number}
        for request, version in told.items():
            assert applied.index(request) + 1 == version, "acknowledged, and lost or elsewhere"
        assert set(applied) <= set(told) | {request for user, request in pending if user == number}
    await store.close()
