"""Real servers that start fast: one process imports everything once, and every server is a fork of it.

Run as ``python server_nursery.py``. Each line on its input is a JSON list: a file for the output, then the arguments
of ``hope-serve``. It answers each with a line, the process id of a new server that runs that command line.
"""

import asyncio
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ANNOUNCED = re.compile(r"listens on (\S+);")


class Nursery:
    """Starts servers and kills them."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._alive = set()
        self._asking = asyncio.Lock()

    async def start(self, output, **options):
        """A deterministic server with these options of ``serve``: its process id, and where it listens, once it does.

        Raises ChildProcessError when it ended instead.
        """
        output.write_text("")
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        async with self._asking:
            pid = await asyncio.to_thread(self._ask, [str(output), "serve", "--deterministic", *arguments])
        self._alive.add(pid)
        while self._lives(pid):
            if found := ANNOUNCED.search(output.read_text()):
                return pid, found[1]
            await asyncio.sleep(0.02)
        raise ChildProcessError(output.read_text())

    def kill(self, pid):
        """SIGKILL: the process learns nothing of it."""
        self._alive.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def stop(self, pid):
        """SIGTERM, as before a restart; returns when the process has drained and is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        while self._lives(pid):  # noqa: ASYNC110  another process sets no event
            await asyncio.sleep(0.02)

    def close(self):
        """Nothing of it is left running: the nursery kills its servers when nobody asks for more."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _lives(self, pid):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self._alive.discard(pid)
        return pid in self._alive

    def _ask(self, line):
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main():
    from hope_serve.config import calm_threads

    calm_threads()
    for name in ("hope_serve.server.serve", "torch._dynamo"):  # the latter is what reading a checkpoint imports
        importlib.import_module(name)
    from hope_serve.cli import main as command_line

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        output, *arguments = json.loads(line)
        if pid := os.fork():
            print(pid, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with Path(output).open("ab") as file, Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        command_line(arguments)
    os.killpg(0, signal.SIGKILL)  # whoever asked is gone, or needs no more servers


if __name__ == "__main__":
    main()
