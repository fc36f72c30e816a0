"""Which server holds a key: the only one, the primary that sentinels name, or the owner of the key's slot."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Protocol

from redis.crc import key_slot

from hope_serve.errors import Unavailable
from hope_serve.memory.redis.address import Address, Host, Mode
from hope_serve.memory.redis.link import ReplyError
from hope_serve.memory.redis.node import Limits, Node


class Topology(Protocol):
    """Finds servers."""

    async def node(self, key: str) -> Node:
        """The server that holds the key. Raises Unavailable."""
        ...

    async def primaries(self) -> Sequence[Node]:
        """Every server that holds keys. Raises Unavailable."""
        ...

    def doubt(self) -> None:
        """Look again before the next call: a server was lost, or sent us elsewhere."""
        ...

    async def close(self) -> None:
        """Disconnect from all."""
        ...


class SingleTopology:
    """One server."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._node = Node(address.hosts[0], address, limits)

    async def node(self, key: str) -> Node:  # noqa: ARG002
        """The server."""
        return self._node

    async def primaries(self) -> Sequence[Node]:
        """The server."""
        return [self._node]

    def doubt(self) -> None:
        """There is no other."""

    async def close(self) -> None:
        """Disconnect."""
        await self._node.close()


class SentinelTopology:
    """The primary that the sentinels name."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        plain = Address(hosts=address.hosts, tls=address.tls, certificate=address.certificate)
        self._sentinels = [Node(host, plain, limits) for host in address.hosts]
        self._primary: Node | None = None
        self._doubtful = True

    async def node(self, key: str) -> Node:  # noqa: ARG002
        """The primary."""
        if self._doubtful or self._primary is None:
            await self._look()
        assert self._primary is not None
        return self._primary

    async def primaries(self) -> Sequence[Node]:
        """The primary."""
        return [await self.node("")]

    def doubt(self) -> None:
        """Ask the sentinels again."""
        self._doubtful = True

    async def close(self) -> None:
        """Disconnect."""
        for node in [*self._sentinels, *([self._primary] if self._primary else [])]:
            await node.close()

    async def _look(self) -> None:
        host = await self._ask()
        if self._primary is None or self._primary.host != host:
            former, self._primary = self._primary, Node(host, self._address, self._limits)
            if former:
                await former.close()
        self._doubtful = False

    async def _ask(self) -> Host:
        for sentinel in self._sentinels:
            try:
                reply = (await sentinel.run([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)]))[0]
            except Unavailable:
                continue
            if isinstance(reply, list) and isinstance(reply[0], bytes) and isinstance(reply[1], bytes):
                return reply[0].decode(), int(reply[1])
        raise Unavailable(f"no sentinel names a primary for {self._address.master!r}; try again with the same id")


class ClusterTopology:
    """The owner of the key's slot."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._nodes: dict[Host, Node] = {}
        self._seeds = [Node(host, address, limits) for host in address.hosts]
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, Host]] = []

    async def node(self, key: str) -> Node:
        """The owner of the key's slot."""
        if not self._ranges:
            await self._look()
        slot = key_slot(key.encode())
        place = bisect.bisect_right(self._starts, slot) - 1
        if place < 0 or slot > self._ranges[place][1]:
            self.doubt()
            raise Unavailable(f"no server of the cluster holds slot {slot} now; try again with the same request id")
        return self._nodes[self._ranges[place][2]]

    async def primaries(self) -> Sequence[Node]:
        """Every owner of slots."""
        await self._look()
        return list(self._nodes.values())

    def doubt(self) -> None:
        """Read the slots again."""
        self._ranges = []

    async def close(self) -> None:
        """Disconnect from all."""
        for node in [*self._seeds, *self._nodes.values()]:
            await node.close()

    async def _look(self) -> None:
        ranges = await self._ask()
        hosts = {host for _, _, host in ranges}
        for host in hosts - self._nodes.keys():
            self._nodes[host] = Node(host, self._address, self._limits)
        self._starts = [first for first, _, _ in ranges]
        self._ranges = ranges
        for host in self._nodes.keys() - hosts:
            await self._nodes.pop(host).close()

    async def _ask(self) -> list[tuple[int, int, Host]]:
        for node in [*self._nodes.values(), *self._seeds]:
            try:
                reply = (await node.run([("CLUSTER", "SLOTS")]))[0]
            except Unavailable:
                continue
            if isinstance(reply, list) and reply and not isinstance(reply[0], ReplyError):
                return sorted(_range(entry, node.host) for entry in reply)
        raise Unavailable("no server of the cluster answers; try again with the same request id")


def make_topology(address: Address, limits: Limits) -> Topology:
    """The topology that the address asks for."""
    match address.mode:
        case Mode.SINGLE:
            return SingleTopology(address, limits)
        case Mode.SENTINEL:
            return SentinelTopology(address, limits)
        case Mode.CLUSTER:
            return ClusterTopology(address, limits)


def _range(entry: object, asked: Host) -> tuple[int, int, Host]:
    """First slot, last slot and primary of an entry of CLUSTER SLOTS. An empty name means the server we asked."""
    assert isinstance(entry, list)
    first, last, (name, port, *_) = entry[:3]
    return int(first), int(last), (name.decode() if name else asked[0], int(port))
