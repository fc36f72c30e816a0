"""A server as a process of its own, for whoever has to start one and end it, gently or not."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from hope_serve.errors import Unavailable

ANNOUNCED = re.compile(r"listens on (\S+); metrics on (\S+);")
STOP_SECONDS = 60.0


class ServerProcess:
    """``hope-serve serve`` with these options, ready when made; ``with`` stops it.

    Args:
        options: command-line options of ``serve``, by name without dashes.
        log: where its standard error goes; None passes it on.

    Raises:
        Unavailable: it ended before it was ready.
    """

    def __init__(self, *, log: Path | None = None, **options: str) -> None:
        given = {"listen": "127.0.0.1:0", "metrics-listen": "127.0.0.1:0"}
        given |= {name.replace("_", "-"): value for name, value in options.items()}
        arguments = [part for name, value in given.items() for part in (f"--{name}", value) if part]
        with log.open("ab") if log else _Inherited() as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "hope_serve.cli", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.target, self.metrics_url = self._addresses()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM, and the exit code after the drain."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        try:
            return self._process.wait(STOP_SECONDS)
        finally:
            self._close()

    def kill(self) -> None:
        """SIGKILL: the process learns nothing of it."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _addresses(self) -> tuple[str, str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := ANNOUNCED.search(line):
                return found[1], found[2]
        code = self._process.wait()
        self._close()
        raise Unavailable(f"the server ended with exit code {code} before it was ready; see what it said above")

    def _close(self) -> None:
        if self._process.stdout:
            self._process.stdout.close()


class _Inherited:
    """Stands for this process's own standard error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
