"""A primary and its replica, a proxy on the link between them, and a sentinel that promotes the replica."""

import asyncio

import redis
from support.redis_proxy import Proxy
from support.redis_server import RedisServer, server_binary, until


class Pair:
    """``url`` goes through the sentinel when there is one, else to the primary."""

    def __init__(self, folder):
        self._folder = folder
        self.primary = RedisServer(folder / "first")
        self.replica = RedisServer(folder / "second")
        self._sentinel = None

    async def start(self):
        self.primary.start()
        self.link = await Proxy(self.primary.port).start()
        self.replica.settings |= {"replicaof": f"127.0.0.1 {self.link.port}"}
        try:
            await asyncio.to_thread(self.replica.start)
            await until(lambda: b"state=online" in self.primary.command("INFO", "replication"))
            self.primary.command("SET", "probe", 1)  # the replica may be online a second before anything reaches it
            await until(lambda: self.replica.command("GET", "probe"))
        except BaseException:
            await self.close()
            raise
        return self

    async def watch(self):
        """Start a sentinel that needs nobody's agreement and a second and a half."""
        self._sentinel = _Sentinel(self._folder / "sentinel", self.primary.port).start()
        await until(lambda: self._sentinel.command("SENTINEL", "REPLICAS", "memories"))

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.primary.port}?durability=replicated_fsync"

    def sentinel_url(self, durability="replicated_fsync"):
        return f"redis://127.0.0.1:{self._sentinel.port}?sentinel=memories&durability={durability}"

    async def promote(self):
        """Make the replica the primary by hand; returns it."""
        await asyncio.to_thread(self.replica.command, "REPLICAOF", "NO", "ONE")
        return self.replica

    async def promoted(self):
        """Wait for the sentinel to have made the replica the primary."""
        await until(self._is_promoted)

    def _is_promoted(self):
        try:
            return b"role:master" in self.replica.command("INFO", "replication")
        except redis.ConnectionError:  # a server that changes its role drops whoever is connected
            return False

    async def close(self):
        await self.link.close()
        for server in (self._sentinel, self.primary, self.replica):
            if server:
                server.kill()


class _Sentinel(RedisServer):
    def __init__(self, folder, primary):
        super().__init__(folder)
        self._config = self.folder / "sentinel.conf"
        self._config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor memories 127.0.0.1 {primary} 1\n"
            "sentinel down-after-milliseconds memories 1500\nsentinel failover-timeout memories 2000\n"
        )
        self._binary = server_binary()

    def arguments(self):
        return [str(self._config), "--sentinel"]
