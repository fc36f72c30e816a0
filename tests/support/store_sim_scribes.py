"""Users of simulated pods who adapt, roll back, are erased and expire, one step after the other, in the same storms.

Each knows what their memory must be after every step that was acknowledged:

9.  Steps hold: a memory that is read holds exactly what the acknowledged steps made of it.
10. Gone stays gone: a request of before an erasure that is sent once more is never applied again.
11. Calm: every step is acknowledged once there are no more faults.
"""

from support.redis_sim import load_functions
from support.store_sim import CALM_SECONDS, STORM_SECONDS, World
from support.store_sim_pod import MODEL, commit_of, content_of

from hope_serve.api import Owner
from hope_serve.errors import HopeError, NotFound, RequestIdReused
from hope_serve.memory.expiry import Terms
from hope_serve.memory.store import Committed, Duplicate

STEPS = ("adapt", "adapt", "adapt", "adapt", "rollback", "erase", "expire", "repeat")
KEPT = 3
AT_ONCE = Terms(idle_seconds=0.0, grace_seconds=0.2, max_gap_seconds=1000.0)


class ScribesWorld(World):
    """One seed's run."""

    def run(self):
        """The rules that were broken."""
        sim = self.sim
        self.scribes = [Scribe(self, Owner(tenant="t", user=f"scribe{number}")) for number in range(2)]
        for scribe in self.scribes:
            sim.spawn(scribe.write())
        sim.spawn(self.storm())
        sim.run(STORM_SECONDS + CALM_SECONDS)
        self.broken += [f"rule 11: {s.owner.user} waits for {s.doing}" for s in self.scribes if s.doing]
        for scribe in self.scribes:
            sim.spawn(scribe.judged())
        sim.run(sim.now + 60)
        return self.broken


class Scribe:
    """One user, and what the user's memory must hold."""

    def __init__(self, world, owner):
        self.world = world
        self.sim = world.sim
        self.owner = owner
        self.doing = ""
        self.done = []
        self._applied = ()
        self._versions = {}
        self._buried = []
        self._number = 0

    async def write(self):
        """Step after step, each tried until it is acknowledged."""
        for _ in range(self.sim.rng.choice([6, 10])):
            step = self.sim.rng.choice(STEPS)
            if step != "adapt" and not (self._buried if step == "repeat" else self._applied):
                step = "adapt"
            self._number += 1
            self.doing = f"{step} {self._number}"
            while not await self._tried(getattr(self, f"_{step}")):
                await self.sim.sleep(self.sim.rng.uniform(0.05, 0.5))
            self.done.append(step)
            self.doing = ""
            await self._look()
            await self.sim.sleep(self.sim.rng.expovariate(1 / 0.3))

    async def judged(self):
        """By a pod that knows nothing."""
        pod = self.world.make_pod(f"judge of {self.owner.user}")
        try:
            await pod.ready()
            await self._compare(pod)
        except HopeError as error:
            self.world.broken.append(f"rule 9: the memory of {self.owner.user} cannot be read: {error}")

    async def _tried(self, step):
        pod = self.sim.rng.choice(self.world.pods)
        try:
            await pod.ready()
            return await step(pod) and pod in self.world.pods
        except HopeError:
            return False
        except AssertionError:
            self.world.broken.append(f"rule 9: a content of {self.owner.user} does not belong together")
            return False

    async def _adapt(self, pod):
        request = f"{self.owner.user}.{self._number}"
        if not (version := await self._committed(pod, request)):
            return False
        if pod in self.world.pods:
            self._holds(version, (*self._applied, (request, "p")))
        return True

    async def _committed(self, pod, request):
        """The version, or None when somebody has to look again."""
        if earlier := await pod.store.find_request(self.owner, request, "p"):
            return earlier.version
        head, applied = await pod.current(self.owner)
        outcome = await pod.store.commit(self.owner, commit_of(head, applied, request, "p"))
        pod.cache.pop(self.owner, None)
        return outcome.version if isinstance(outcome, Committed | Duplicate) else None

    async def _rollback(self, pod):
        newest = max(self._versions)
        target = min(self._versions, key=lambda version: (version <= newest - KEPT, version))
        request = f"{self.owner.user}.{self._number}"
        outcome = await pod.store.rollback(self.owner, to_version=target, request_id=request)
        if pod in self.world.pods:
            self._holds(outcome.version, self._versions[target])
        return True

    async def _erase(self, pod):
        try:
            await pod.store.erase(self.owner)
        except NotFound:
            return False  # misled, or answered with another's
        if pod in self.world.pods:
            self._holds_nothing()
        return True

    async def _expire(self, pod):
        """As upkeep does it, for this user alone."""
        going_over = await pod.store.upkeep._expiry.begin(AT_ONCE)
        key = pod.store.owner_key(self.owner)
        rows = [row for row in await pod.store._backend.owners(None, "", 100) if row.owner == key]
        await going_over.page(rows)
        if going_over.done().erased and pod in self.world.pods:
            self._holds_nothing()
            return True
        return not (await pod.store.head(self.owner)).exists and self._expired_unheard(pod)

    def _expired_unheard(self, pod):
        """The answer of an earlier try was lost, and the memory with it, as it should be."""
        if pod.name in self.world.cluster.misled or pod not in self.world.pods:
            return False
        self._holds_nothing()
        return True

    async def _repeat(self, pod):
        """A request of before the last erasure, that somebody sends once more."""
        request = self.sim.rng.choice(self._buried)
        try:
            version = await self._committed(pod, request)
        except RequestIdReused:
            return True
        if version:
            self.world.broken.append(f"rule 10: {request} was applied again as version {version}, after an erasure")
        return True

    async def _look(self):
        depositions, pod = self.world.cluster.depositions, self.sim.rng.choice(self.world.pods)
        misled = pod.name in self.world.cluster.misled
        try:
            await pod.ready()
            found = await self._found(pod)
        except HopeError:
            return
        if not misled and depositions == self.world.cluster.depositions:
            self._check(found)

    async def _compare(self, pod):
        self._check(await self._found(pod))

    async def _found(self, pod):
        pod.cache.pop(self.owner, None)
        head = await pod.store.head(self.owner)
        if not head.exists:
            return ()
        return content_of((await pod.store.load(self.owner, fingerprint=MODEL)).snapshot)

    def _check(self, found):
        if found != self._applied:
            self.world.broken.append(f"rule 9: {self.owner.user} holds {found}, and {self._applied} was acknowledged")

    def _holds(self, version, applied):
        self._applied = applied
        self._versions[version] = applied
        for old in sorted(self._versions)[:-KEPT]:
            del self._versions[old]

    def _holds_nothing(self):
        self._buried += [request for request, _ in self._applied]
        self._applied, self._versions = (), {}


def run_scribes(seed, *, functions=None):
    """The rules that one seed breaks."""
    return ScribesWorld(seed, functions=functions or load_functions()).run()
