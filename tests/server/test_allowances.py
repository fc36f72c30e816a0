"""What a tenant, a user and a key may take, and when those who took too much may come back."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from contextlib import asynccontextmanager

import pytest
from support.server_running import connect

from hope_serve.api import AdaptOptions, Learn, SamplingParams
from hope_serve.client import Message
from hope_serve.errors import Exhausted, InvalidRequest
from hope_serve.identity import EVERYBODY, Caller, Scope
from hope_serve.identity.api_keys import NewKey, new_key
from hope_serve.identity.limits import Limits
from hope_serve.server import allowances
from hope_serve.server.allowances import Allowances, Demand
from hope_serve.server.buckets import Bucket
from hope_serve.server.guard import Guard

LONG = SamplingParams(max_tokens=4000, ignore_eos=True)
SHORT = SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kept(clock):
    """``kept(tenant={...}, user={...})``."""

    def make(tenant=None, user=None):
        return Allowances(Limits(**(tenant or {})), Limits(**(user or {})), burst_seconds=10.0, clock=clock)

    return make


def test_a_rate_is_kept_over_time_whatever_the_size_of_the_pieces(clock):
    for size in (1, 7, 300):
        bucket, used, began = Bucket(50.0, 10.0, clock), 0, clock.now
        while clock.now < began + 1000:
            if wait := bucket.wait():
                clock.now += wait
            else:
                bucket.pay(size)
                used += size
        assert used == pytest.approx(50.0 * 1000 + 500, abs=size + 1)


def test_a_bucket_without_a_rate_never_empties(clock):
    bucket = Bucket(0.0, 10.0, clock)
    bucket.pay(1e9)
    assert bucket.wait() == 0.0
    assert Bucket(5.0, 2.0, clock).wait() == 0.0


def test_slots_are_taken_and_given_back_however_a_call_ends(kept):
    shares = kept(tenant={"slots": 4})
    with pytest.raises(KeyError), shares.entered(EVERYBODY, "ann", Demand(slots=3)):
        with pytest.raises(Exhausted, match="3 of 4") as refused, shares.entered(EVERYBODY, "bob", Demand(slots=2)):
            pytest.fail("there was no room")
        assert (refused.value.reason, refused.value.retry_after) == ("TENANT_LIMITS", 1.0)
        raise KeyError
    with shares.entered(EVERYBODY, "bob", Demand(slots=4)):
        pass


def test_a_call_that_would_never_fit_is_told_so_by_field(kept):
    with pytest.raises(InvalidRequest, match=r"sampling\.n: 16 .*tenant_limits\.slots 4"):
        with kept(tenant={"slots": 4}).entered(EVERYBODY, "", Demand(slots=16, field="sampling.n")):
            pytest.fail("it was let in")


def test_what_one_tenant_or_user_takes_is_not_taken_from_another(kept):
    shares = kept(tenant={"slots": 2}, user={"slots": 1})
    other = Caller(tenant="other", scopes=frozenset(Scope))
    with shares.entered(EVERYBODY, "ann", Demand()), shares.entered(other, "ann", Demand()):
        with pytest.raises(Exhausted) as refused, shares.entered(EVERYBODY, "ann", Demand()):
            pytest.fail("ann has one")
        assert refused.value.reason == "USER_LIMITS"
        with shares.entered(EVERYBODY, "bob", Demand()):
            with pytest.raises(Exhausted) as refused, shares.entered(EVERYBODY, "cia", Demand()):
                pytest.fail("the tenant has two")
            assert refused.value.reason == "TENANT_LIMITS"


def test_a_refusal_takes_nothing_from_anybody(kept):
    shares = kept(tenant={"slots": 2}, user={"slots": 1})
    with shares.entered(EVERYBODY, "ann", Demand()):
        for _ in range(5):
            with pytest.raises(Exhausted), shares.entered(EVERYBODY, "ann", Demand()):
                pytest.fail("ann has one")
        with shares.entered(EVERYBODY, "bob", Demand()):
            pass


def test_tokens_wait_until_the_first_answer_and_one_call_may_always_wait(kept):
    shares = kept(user={"waiting_tokens": 100})
    with shares.entered(EVERYBODY, "ann", Demand(waiting=1000)) as first:
        with pytest.raises(Exhausted, match="waiting_tokens"), shares.entered(EVERYBODY, "ann", Demand(waiting=1)):
            pytest.fail("too many wait")
        first.answered(1)
        with shares.entered(EVERYBODY, "ann", Demand(waiting=60)), shares.entered(EVERYBODY, "ann", Demand(waiting=40)):
            pass
    with shares.entered(EVERYBODY, "ann", Demand(waiting=100)):
        pass


def test_tokens_that_were_written_are_paid_for_and_the_wait_is_told(kept, clock):
    shares = kept(user={"generate_tokens_per_second": 10.0})
    with shares.entered(EVERYBODY, "ann", Demand(reads=50)) as call:
        for _ in range(200):
            call.answered(1)  # 250 of the 100 that a rest is good for
    with pytest.raises(Exhausted) as refused, shares.entered(EVERYBODY, "ann", Demand(reads=1)):
        pytest.fail("ann is in debt")
    assert refused.value.retry_after == pytest.approx(15.0)
    clock.now += 15.1
    with shares.entered(EVERYBODY, "ann", Demand(reads=1)):
        pass


def test_learning_and_generating_are_counted_apart(kept):
    shares = kept(tenant={"learn_tokens_per_second": 1.0})
    with shares.entered(EVERYBODY, "ann", Demand(learns=100)):
        pass
    with pytest.raises(Exhausted, match="learn_tokens_per_second"):
        shares.check_learning(EVERYBODY, "ann")
    with shares.entered(EVERYBODY, "ann", Demand(reads=100)):
        pass


def test_a_keys_limits_stand_beside_those_of_its_tenant(kept):
    shares = kept(tenant={"max_tokens": 1000})
    small = Caller(
        tenant="acme", scopes=frozenset(Scope), name="k", limits=Limits(slots=1, max_tokens=10, max_priority=-5)
    )
    with shares.entered(small, "ann", Demand()):
        with pytest.raises(Exhausted) as refused, shares.entered(small, "bob", Demand()):
            pytest.fail("the key has one")
        assert refused.value.reason == "KEY_LIMITS"
    with pytest.raises(InvalidRequest, match=r"key_limits\.max_tokens 10"):
        shares.check_sampling(small, max_tokens=11, priority=-5)
    with pytest.raises(InvalidRequest, match=r"key_limits\.max_priority -5"):
        shares.check_sampling(small, max_tokens=10, priority=0)
    with pytest.raises(InvalidRequest, match=r"tenant_limits\.max_tokens 1000"):
        shares.check_sampling(EVERYBODY, max_tokens=1001, priority=0)
    shares.check_sampling(small, max_tokens=10, priority=-5)


def test_accounts_of_those_who_left_do_not_pile_up_and_debts_are_not_forgotten(kept, clock, monkeypatch):
    monkeypatch.setattr(allowances, "MAX_ACCOUNTS", 50)
    shares = kept(user={"generate_tokens_per_second": 1.0})
    with shares.entered(EVERYBODY, "debtor", Demand(reads=10_000)):
        pass
    for number in range(1000):
        with shares.entered(EVERYBODY, f"user{number}", Demand()):
            pass
    assert len(shares._accounts) <= 52
    with pytest.raises(Exhausted), shares.entered(EVERYBODY, "debtor", Demand(reads=1)):
        pytest.fail("the debt was forgotten")


def test_without_limits_nothing_stands_between_rpcs_and_service(checkpoint_folder, tmp_path):
    from support.server_running import server_config

    service = object()
    assert Guard.load(server_config(checkpoint_folder, tmp_path)).rationed(service) is service


# Through the wire.


@asynccontextmanager
async def limited(open_server, **limits):
    async with open_server(**limits) as server, connect(server) as client:
        yield server, client


async def test_choices_over_the_limit_are_refused_and_parallel_ones_have_to_wait(open_server):
    async with limited(open_server, user_limits={"slots": 2}) as (server, client):
        with pytest.raises(InvalidRequest) as refused:
            await client.generate("tea", user_id="ann", sampling=SamplingParams(n=3, max_tokens=2))
        assert refused.value.field == "sampling.n"
        streams = [client.stream("tea", user_id="ann", sampling=LONG) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        with pytest.raises(Exhausted) as full:
            await client.generate("tea", user_id="ann", sampling=SHORT)
        assert (full.value.reason, full.value.retry_after) == ("USER_LIMITS", 1.0)
        await client.generate("tea", user_id="bob", sampling=SHORT)
        assert await asyncio.to_thread(_refusals, server, "user_limits") == 1
        for stream in streams:
            await stream.aclose()
        await _eventually(lambda: client.generate("tea", user_id="ann", sampling=SHORT))


async def test_every_call_that_computes_takes_from_the_allowance(open_server):
    tight = {"generate_tokens_per_second": 0.001, "learn_tokens_per_second": 0.001}
    async with limited(open_server, user_limits=tight, burst_seconds=0.1) as (_, client):
        await client.adapt("ann", "My dog is called Biscuit.")
        await client.generate("tea", user_id="ann", sampling=SHORT)
        refused = {
            "adapt": lambda: client.adapt("ann", "tea"),
            "generate": lambda: client.generate("tea", user_id="ann", sampling=SHORT),
            "stream": lambda: anext(client.stream("tea", user_id="ann", sampling=SHORT)),
            "score": lambda: client.score("tea", ["pot"], user_id="ann"),
            "evaluate": lambda: client.evaluate_memory("ann", ["tea"]),
            "learn": lambda: client.generate(
                [Message(role="user", text="tea")], user_id="ann", learn=Learn.USER_TURNS, sampling=SHORT
            ),
        }
        for name, call in refused.items():
            with pytest.raises(Exhausted) as full:
                await call()
            assert full.value.reason == "USER_LIMITS", name
            assert full.value.retry_after > 1, name


async def test_learning_from_an_exchange_is_refused_before_the_answer_and_paid_for_after_it(open_server):
    turn = [Message(role="user", text="My dog is called Biscuit.")]
    tight = {"learn_tokens_per_second": 0.001}
    async with limited(open_server, user_limits=tight, burst_seconds=0.1) as (server, client):
        await client.generate(turn, user_id="ann", learn=Learn.USER_TURNS, sampling=SHORT)
        await server.server.drain()
        assert (await server.service.memories.versions(EVERYBODY.owner("ann")))[-1].version == 1
    async with limited(open_server, user_limits=tight, burst_seconds=0.1) as (_, client):
        await client.adapt("bob", "tea", options=AdaptOptions(passes=2))
        with pytest.raises(Exhausted, match="learn_tokens_per_second"):
            await client.generate(turn, user_id="bob", learn=Learn.USER_TURNS, sampling=SHORT)
        await client.generate(turn, user_id="bob", sampling=SHORT)


async def test_our_client_comes_back_when_it_was_told_to(open_server):
    """About 3 s of debt; by itself the client would try again after a tenth of a second."""
    limits = {"generate_tokens_per_second": 15.0}
    async with open_server(tenant_limits=limits, burst_seconds=0.1) as server:
        async with connect(server, retries=True) as client:
            await client.generate([20] * 45, sampling=SamplingParams(max_tokens=1, ignore_eos=True))
            began = time.monotonic()
            await client.generate([20], sampling=SHORT)
            assert time.monotonic() - began > 0.5
            assert await asyncio.to_thread(_refusals, server, "tenant_limits") == 1


async def test_a_key_bounds_what_is_done_with_it(open_server, tmp_path):
    file = tmp_path / "keys.json"
    limits = Limits(max_tokens=8, max_priority=0)
    _, shown = new_key(file, NewKey(tenant="acme", scopes=(Scope.GENERATE,), limits=limits))
    async with open_server(identity={"key_file": str(file)}) as server, connect(server, credential=shown) as client:
        await client.generate("tea", sampling=SHORT, priority=-1)
        for call, field in (
            ({"sampling": LONG}, "sampling.max_tokens"),
            ({"sampling": SHORT, "priority": 1}, "priority"),
        ):
            with pytest.raises(InvalidRequest) as refused:
                await client.generate("tea", **call)
            assert refused.value.field == field


async def _eventually(call):
    async with asyncio.timeout(5):
        while True:
            try:
                return await call()
            except Exhausted:
                await asyncio.sleep(0.02)


def _refusals(server, reason) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    name = f'hope_admission_rejected_total{{reason="{reason}"}} '
    return float(next(line for line in lines if line.startswith(name)).split()[1])
