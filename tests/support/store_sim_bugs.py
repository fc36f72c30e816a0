"""Bugs to plant in the store or in the pods around it, each of which the simulation must find."""

import dataclasses

from support import store_sim_pod
from support.redis_sim import SimLink, load_functions
from support.store_sim_pod import Pod, commit_of

from hope_serve.errors import Unavailable
from hope_serve.memory import index, seal, writing
from hope_serve.memory.redis import facts
from hope_serve.memory.redis.calls import Calls
from hope_serve.memory.store import Committed, Duplicate

CLIENT_RETRIES = 10


def no_request_id_check(monkeypatch):
    return {"functions": patched("local row = redis.call('HGET', p .. 'i', request)", "local row = nil")}


def last_writer_wins(monkeypatch):
    return {"functions": patched("if head[1] ~= base or head[6] ~= args[21] then", "if false then")}


def acknowledgement_before_the_wait(monkeypatch):
    class Hasty(Calls):
        def _waits(self):
            return []

    class HastyPod(Pod):
        calls = Hasty

    return {"pod": HastyPod}


def wait_on_another_connection(monkeypatch):
    class TwoConnections(SimLink):
        async def attempt(self, commands, then):
            replies = await super().attempt(commands, ())
            return replies + (await super().attempt((), then) if then else [])

    class TwoConnectionsPod(Pod):
        link = TwoConnections

    return {"pod": TwoConnectionsPod}


def no_write_before_the_wait_for_a_duplicate(monkeypatch):
    return {"functions": patched("redis.call('HSET', p .. 'm', 'touch', '1')", "")}


def default_client_retries(monkeypatch):
    class Stubborn(SimLink):
        async def attempt(self, commands, then):
            for _ in range(CLIENT_RETRIES):
                try:
                    return await super().attempt(commands, then)
                except Unavailable:
                    continue
            return await super().attempt(commands, then)

    class StubbornPod(Pod):
        link = Stubborn

    return {"pod": StubbornPod}


def digest_check_skipped(monkeypatch):
    monkeypatch.setattr(writing, "hashed", lambda digest: "00")
    return {}


def user_left_out_of_the_seal(monkeypatch):
    bind = index.bind
    monkeypatch.setattr(seal.Binding, "_owner", b"")
    monkeypatch.setattr(index, "bind", lambda form, owner, *facts: bind(form, *facts))
    return {}


def stale_cache_kept_on_conflict(monkeypatch):
    class Keeping(Pod):
        async def after_conflict(self, owner, applied, request, payload, outcome):
            pass

    return {"pod": Keeping}


def old_state_sent_again(monkeypatch):
    class Resending(Pod):
        async def after_conflict(self, owner, applied, request, payload, outcome):
            head = outcome.head.version, outcome.head.mark
            again = await self.store.commit(owner, commit_of(head, applied, request, payload))
            if isinstance(again, Committed | Duplicate):
                self.cache.pop(owner, None)

    return {"pod": Resending}


def equal_numbers_taken_for_equal_versions(monkeypatch):
    def unmarked(*arguments):
        return dataclasses.replace(commit_of(*arguments), base_mark=None)

    monkeypatch.setattr(store_sim_pod, "commit_of", unmarked)
    return {}


def secret_taken_before_it_lasts(monkeypatch):
    async def hasty(calls, key):
        return await facts.read_once(calls, key)

    monkeypatch.setattr(facts, "_lasting", hasty)
    return {}


def late_erasure_of_a_newer_memory(monkeypatch):
    return {"functions": patched("if base ~= '' and held ~= base then", "if false then")}


def erased_requests_forgotten(monkeypatch):
    return {"functions": patched("  bury_requests(p, keep_ms)\n", "")}


BUGS = {
    no_request_id_check: "rule 2",
    last_writer_wins: "rule 2",
    acknowledgement_before_the_wait: "rule 2",
    wait_on_another_connection: "rule 2",
    no_write_before_the_wait_for_a_duplicate: "rule 2",
    default_client_retries: "rule 7",
    digest_check_skipped: "rule 5",
    user_left_out_of_the_seal: "rule 4",
    stale_cache_kept_on_conflict: "rule 6",
    old_state_sent_again: "rule 2",
    equal_numbers_taken_for_equal_versions: "rule 2",
}
"""Bugs, and the rule by which each is to be found."""

BUGS_OF_SCRIBES = {
    secret_taken_before_it_lasts: "rule 9",
    late_erasure_of_a_newer_memory: "rule 9",
    erased_requests_forgotten: "rule 10",
}
"""Those that scribes are to find."""


def patched(before, after):
    """The function library with one place changed."""

    def patch(text):
        assert text.count(before) == 1, before
        return text.replace(before, after)

    return load_functions(patch)
