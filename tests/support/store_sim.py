"""Clients of simulated pods, a storm of faults, and the history that comes of it."""

from support.redis_sim import CALL_SECONDS, Cluster, load_functions
from support.store_history import Acknowledged, History, Read, Sent, violations
from support.store_sim_pod import MODEL, Pod, content_of, learned
from support.store_sim_time import Sim

from hope_serve.api import Durability, Owner
from hope_serve.errors import HopeError, RequestIdReused, VersionConflict
from hope_serve.memory.store import StoredSession

STORM_SECONDS = 12.0
CALM_SECONDS = 40.0
FAULTS = ("pod", "crash", "cut", "depose", "misroute", "nothing")
STEP = 1.001 * CALL_SECONDS


class World:
    """One seed's run."""

    def __init__(self, seed, *, functions, pod=Pod):
        self.sim = sim = Sim(seed)
        self.replicated = sim.rng.random() < 0.5
        durability = Durability.REPLICATED_FSYNC if self.replicated else Durability.LOCAL_FSYNC
        self.cluster = Cluster(sim, functions, replicated=self.replicated)
        self.make_pod = lambda name: pod(sim, self.cluster, name, durability)
        self.pods = [self.make_pod(f"pod{number}") for number in range(sim.rng.choice([1, 2, 3]))]
        self.owners = [Owner(tenant="t", user=f"u{number}") for number in range(sim.rng.choice([1, 2, 3]))]
        self.history = History()
        self.broken = []
        self.faults = set()
        self.unanswered = 0

    def run(self):
        """Storm, then calm, then what is there is compared with what was said. Returns the rules broken."""
        sim = self.sim
        for number in range(sim.rng.choice([2, 3, 5])):
            sim.spawn(self.client(f"c{number}"))
        sim.spawn(self.talker())
        sim.spawn(self.storm())
        sim.run(STORM_SECONDS + CALM_SECONDS)
        if self.unanswered:
            self.broken.append(f"rule 6: {self.unanswered} requests got no answer in {CALM_SECONDS} s without faults")
        sim.spawn(self.collect())
        sim.run(sim.now + 60)
        return self.broken + violations(self.history)

    async def storm(self):
        sim, rng = self.sim, self.sim.rng
        while sim.now < STORM_SECONDS:
            await sim.sleep(rng.expovariate(1 / 1.5))
            fault = rng.choice(FAULTS)
            self.faults.add(fault)
            if fault == "pod":
                self.restart_pod()
            elif fault == "crash":
                self.history.versions_can_be_lost = self.replicated
                await self.cluster.crash()
            elif fault == "cut" and self.replicated:
                sim.spawn(self.cluster.cut_link())
            elif fault == "depose" and self.replicated:
                self.history.versions_can_be_lost = True
                await self.cluster.depose([pod.name for pod in self.pods])
            elif fault == "misroute":
                sim.spawn(self.cluster.misroute(rng.choice(self.pods).name))
        self.cluster.weather.clear()

    def restart_pod(self):
        """A pod dies in the middle of whatever it does: its calls never return, what it sent may still arrive."""
        place = self.sim.rng.randrange(len(self.pods))
        self.pods[place] = self.make_pod(self.pods[place].name)

    async def client(self, name):
        sim, rng = self.sim, self.sim.rng
        for number in range(rng.choice([3, 5])):
            owner = rng.choice(self.owners)
            request, payload = f"{name}.{number}", "p"
            self.history.sent.append(Sent(owner.user, request, payload, sim.now))
            self.unanswered += 1
            twin = sim.spawn(self.once(owner, request, payload)) if rng.random() < 0.2 else None
            await self.until_answered(owner, request, payload)
            self.unanswered -= 1
            if rng.random() < 0.3:
                await self.reuse(owner, request)
            if rng.random() < 0.7:
                await self.look(rng.choice(self.owners))
            if twin and rng.random() < 0.5:
                twin.kill()
            await sim.sleep(rng.expovariate(1 / 0.5))

    async def until_answered(self, owner, request, payload):
        while not await self.once(owner, request, payload):
            await self.sim.sleep(self.sim.rng.uniform(0.05, 0.5))

    async def once(self, owner, request, payload):
        """One try at any pod; whether it was acknowledged."""
        pod = self.sim.rng.choice(self.pods)
        try:
            version = await pod.adapt(owner, request, payload)
        except HopeError as error:
            self.check_time(pod)
            if isinstance(error, RequestIdReused):
                self.broken.append(f"rule 5: {request} was refused as reused with the payload it had")
            return False
        except AssertionError:
            self.broken.append(f"rule 4: a content of {owner.user} does not belong together")
            return False
        self.check_time(pod)
        if pod not in self.pods:
            return False  # it died before the answer was out
        self.history.acknowledged.append(Acknowledged(owner.user, request, payload, version, self.sim.now))
        return True

    async def reuse(self, owner, request):
        """The id of an acknowledged request with another payload must be refused, and never be applied."""
        try:
            await self.sim.rng.choice(self.pods).adapt(owner, request, "other")
        except RequestIdReused:
            return
        except HopeError:
            return
        self.broken.append(f"rule 5: {request} was accepted with another payload")

    async def look(self, owner):
        """A read that is on record, unless the pod took a server for the primary that no longer was: there it may see
        a branch that will be lost, under numbers that will come again.
        """
        began, depositions = self.sim.now, self.cluster.depositions
        known = max((ack.version for ack in self.history.acknowledged if ack.owner == owner.user), default=0)
        pod = self.sim.rng.choice(self.pods)
        misled = pod.name in self.cluster.misled
        try:
            seen = await pod.read(owner, known)
        except HopeError:
            return
        if seen and not misled and depositions == self.cluster.depositions:
            self.history.reads.append(Read(owner.user, seen[0], seen[1], began, known))

    async def talker(self):
        """One conversation with one turn at a time: what is refused must not have been kept."""
        sim, owner, turn = self.sim, self.owners[0], 0
        while sim.now < STORM_SECONDS:
            await sim.sleep(sim.rng.expovariate(1 / 1.0))
            pod, mark = sim.rng.choice(self.pods), ((f"turn-{sim.rng.random()}", "x"),)
            try:
                await pod.ready()
                session = StoredSession(turn=turn + 1, base_version=0, snapshot=learned(mark))
                await pod.store.save_session(owner, "talk", session, ttl_seconds=1000)
                turn += 1
            except VersionConflict as error:
                turn = error.head
                if await self.kept_turn(pod, owner) == mark:
                    self.broken.append("rule 7: a turn was refused, and kept")
            except HopeError:
                continue

    async def kept_turn(self, pod, owner):
        try:
            stored = await pod.store.load_session(owner, "talk", fingerprint=MODEL)
        except HopeError:
            return None
        return stored and content_of(stored.snapshot)

    def check_time(self, pod):
        if pod.wire.longest > STEP:
            self.broken.append(f"rule 8: a call took {pod.wire.longest:.1f} s, and may take {CALL_SECONDS} s")
            pod.wire.longest = 0

    async def collect(self):
        """The memories as they are, by a pod that knows nothing."""
        pod = self.make_pod("judge")
        await pod.ready()
        for owner in self.owners:
            try:
                (version, _), applied = await pod.fresh(owner)
            except AssertionError:
                self.broken.append(f"rule 4: the content of {owner.user} does not belong together")
                continue
            except HopeError as error:
                self.broken.append(f"rule 2: the memory of {owner.user} cannot be read: {error}")
                continue
            if version != len(applied):
                self.broken.append(f"rule 1: {owner.user} is at version {version} with {len(applied)} requests")
            self.history.final[owner.user] = applied


def run_seed(seed, *, functions=None, pod=Pod):
    """The rules that one seed breaks."""
    return World(seed, functions=functions or load_functions(), pod=pod).run()


def run_seeds(seeds):
    """The rules that these seeds break, as text."""
    functions = load_functions()
    return [f"seed {seed}: {text}" for seed in seeds for text in run_seed(seed, functions=functions)]
