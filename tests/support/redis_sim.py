"""Servers and the network between them and the pods, in virtual time, with every fault that a seed calls for."""

from support.redis_memory import Functions, Keys
from support.store_sim_time import Event

from hope_serve.errors import Unavailable
from hope_serve.memory.redis.library import library_text

CALL_SECONDS = 1.5
READS = ("FCALL_RO", "HGET", "HMGET")
EPOCH = "simulated"


class Weather:
    """How likely each fault is, drawn for one seed."""

    def __init__(self, rng):
        self.lost_request = rng.choice([0, 0.02, 0.1])
        self.lost_reply = rng.choice([0, 0.02, 0.1])
        self.slow = rng.choice([0, 0.02, 0.1])
        self.late = rng.choice([0, 0.02, 0.1])

    def clear(self):
        """No more faults."""
        self.lost_request = self.lost_reply = self.slow = self.late = 0


class Server:
    """One server: its keys in memory, how much of its writes is on its disk, and what its replica has."""

    def __init__(self, sim, functions, keys=None):
        self.sim = sim
        self.functions = functions
        self.keys = keys or Keys(lambda: sim.now)
        self.alive = True
        self.offset = 0
        self.replica = None
        self.replica_offset = 0
        self.link_is_up = True
        self._stream = []

    def attach_replica(self):
        """A replica that has everything now, and gets every write a moment later."""
        self.replica = self.keys.copy()
        self.replica_offset = self.offset
        self._stream = []

    def execute(self, command):
        """Run one command. Its writes are on this server's disk when it returns, and on their way to the replica."""
        name, *rest = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        if name in (b"FCALL", b"FCALL_RO"):
            count = int(rest[1])
            reply = self.functions.run(self.keys, rest[0], rest[2 : 2 + count], rest[2 + count :])
        else:
            reply = self.keys.call(name, *rest)
        if self.keys.effects:
            self.offset += 1
            if self.replica is not None:
                self._stream.append((self.offset, list(self.keys.effects)))
                self.sim.spawn(self._replicate())
            self.keys.effects.clear()
        return reply

    async def _replicate(self):
        await self.sim.sleep(self.sim.rng.expovariate(1 / 0.001))
        while self._stream and self.link_is_up and self.alive:
            offset, effects = self._stream.pop(0)
            self.replica.apply(effects)
            self.replica_offset = offset

    async def confirmed(self, offset, milliseconds):
        """What WAITAOF 1 1 answers for writes up to this offset."""
        give_up, step = self.sim.now + milliseconds / 1000, 0.001
        while self.alive and self.replica_offset < offset and self.sim.now < give_up:
            await self.sim.sleep(min(step, give_up - self.sim.now))
            step *= 2
            if self._stream and self.link_is_up:
                await self._replicate()
        return [1, int(self.replica is not None and self.replica_offset >= offset)]


class Cluster:
    """A primary, its replica, and what is left of former primaries."""

    def __init__(self, sim, functions, *, replicated):
        self.sim = sim
        self.weather = Weather(sim.rng)
        self._functions = functions
        self._replicated = replicated
        self.primary = Server(sim, functions)
        if replicated:
            self.primary.attach_replica()
        self.deposed = None
        self.misled = set()
        self.depositions = 0
        self.misrouted = {}

    def server_for(self, pod):
        """Whom a pod takes for the primary."""
        return self.deposed if self.deposed and pod in self.misled else self.primary

    async def crash(self):
        """The primary dies. With a replica that one takes over; without, it comes back from its disk."""
        failed = self.primary
        failed.alive = False
        await self.sim.sleep(self.sim.rng.uniform(0.05, 0.5))
        if self._replicated:
            self._promote(failed)
        else:
            failed.alive = True

    async def depose(self, pods):
        """The replica takes over while the primary still runs, and some pods have not noticed."""
        self.deposed, self.misled = self.primary, {pod for pod in pods if self.sim.rng.random() < 0.5}
        self.depositions += 1
        self.deposed.link_is_up = False
        self._promote(self.deposed)
        await self.sim.sleep(self.sim.rng.uniform(0.1, 2.0))
        self.deposed.alive = False
        self.deposed, self.misled = None, set()

    async def cut_link(self):
        """The replica gets nothing for a while."""
        server = self.primary
        server.link_is_up = False
        await self.sim.sleep(self.sim.rng.uniform(0.1, 3.0))
        server.link_is_up = server is self.primary

    async def misroute(self, pod):
        """For a while a pod that reads one owner's memory is answered with another's."""
        held = self.primary.keys.data.items()
        tags = sorted(key[: key.index(b"}") + 1] for key, value in held if key.endswith(b"}:m") and b"ver" in value)
        if len(tags) < 2:
            return
        self.misrouted[pod] = [tag.decode() for tag in self.sim.rng.sample(tags, 2)]
        await self.sim.sleep(self.sim.rng.uniform(0.1, 2.0))
        self.misrouted.pop(pod, None)

    def _promote(self, former):
        former.replica_offset = -1  # whatever it still writes will never be on a replica
        self.primary = Server(self.sim, self._functions, former.replica)
        self.primary.attach_replica()


class SimLink:
    """A ``Link`` of one pod. Every call is a connection of its own, unless a bug is planted that says otherwise."""

    def __init__(self, sim, cluster, pod):
        self._sim = sim
        self._cluster = cluster
        self._pod = pod
        self.longest = 0.0

    async def run(self, key, commands, *, then=(), bulk=False):
        began = self._sim.now
        try:
            return await self.attempt(commands, then)
        finally:
            self.longest = max(self.longest, self._sim.now - began)

    async def attempt(self, commands, then):
        answer = Event()
        self._sim.spawn(self._deliver(commands, then, answer))
        if not await self._sim.wait(answer, CALL_SECONDS) or answer.value is None:
            raise Unavailable("no answer; try again with the same request id")
        return answer.value

    async def close(self):
        pass

    async def _deliver(self, commands, then, answer):
        """Goes on when the pod has given up, or died: what was sent may still arrive."""
        sim, weather = self._sim, self._cluster.weather
        await sim.sleep(self._delay())
        if sim.rng.random() < weather.late:
            await sim.sleep(sim.rng.uniform(0.5, 4.0))
        server = self._cluster.server_for(self._pod)
        if not server.alive or sim.rng.random() < weather.lost_request:
            answer.set(sim)
            return
        before = server.offset
        replies = [server.execute(self._routed(command)) for command in commands]
        wrote = server.offset if server.offset != before else -1
        for command in then:
            replies.append(await server.confirmed(wrote, command[3]))
        if not server.alive or sim.rng.random() < weather.lost_reply:
            answer.set(sim)
            return
        await sim.sleep(self._delay())
        answer.set(sim, replies)

    def _routed(self, command):
        if self._pod not in self._cluster.misrouted or command[0] not in READS:
            return command
        mine, other = self._cluster.misrouted[self._pod]
        return tuple(part.replace(mine, other) if isinstance(part, str) else part for part in command)

    def _delay(self):
        rng = self._sim.rng
        return rng.uniform(0.2, 3.0) if rng.random() < self._cluster.weather.slow else rng.expovariate(1 / 0.001)


def load_functions(patch=lambda text: text):
    """The real library, or one with a bug planted in its text."""
    return Functions(patch(library_text(EPOCH)))
