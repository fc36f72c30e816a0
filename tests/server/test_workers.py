"""The threads for long messages, and how much may be under way: tenants take turns, and none has everything."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.server_running import connect

from hope_serve.api import SamplingParams
from hope_serve.errors import Exhausted
from hope_serve.identity import Caller, Scope
from hope_serve.identity.api_keys import NewKey, new_key
from hope_serve.server.admission import Admission
from hope_serve.server.owners import VISIT, Visit, current_caller
from hope_serve.server.workers import INLINE_SIZE, LONG_SIZE, Workers

SHORT = SamplingParams(max_tokens=2)


@pytest.fixture
def workers():
    made = Workers()
    yield made
    made.close()


def calling(workers, tenant, size, work):
    """A task of that tenant's call."""

    async def call():
        VISIT.set(Visit(caller=Caller(tenant=tenant, scopes=frozenset(Scope))))
        return await workers.run(size, work)

    return asyncio.create_task(call())


@pytest.mark.parametrize("size", [INLINE_SIZE + 1, LONG_SIZE + 1])
async def test_a_tenants_work_waits_for_one_piece_of_anothers_and_not_for_all_of_them(workers, size):
    gate, order = threading.Event(), []

    def work(name):
        gate.wait(10)
        order.append(name)
        return name

    greedy = [calling(workers, "greedy", size, lambda i=i: work(f"g{i}")) for i in range(20)]
    await asyncio.sleep(0)
    modest = calling(workers, "modest", size, lambda: work("m"))
    await asyncio.sleep(0)
    gate.set()
    assert await modest == "m"
    assert await asyncio.gather(*greedy) == [f"g{i}" for i in range(20)]
    assert order.index("m") <= 4


async def test_work_runs_in_its_callers_context_and_its_fault_is_the_callers(workers):
    assert await calling(workers, "acme", LONG_SIZE + 1, lambda: current_caller().tenant) == "acme"
    with pytest.raises(ZeroDivisionError):
        await calling(workers, "acme", LONG_SIZE + 1, lambda: 1 // 0)
    assert await calling(workers, "acme", LONG_SIZE + 1, lambda: 7) == 7


async def test_who_leaves_before_the_turn_gives_it_up(workers):
    gate, ran = threading.Event(), []
    first = calling(workers, "acme", LONG_SIZE + 1, lambda: gate.wait(10))
    await asyncio.sleep(0)
    second = calling(workers, "acme", LONG_SIZE + 1, lambda: ran.append("second"))
    third = calling(workers, "acme", LONG_SIZE + 1, lambda: ran.append("third"))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    gate.set()
    await asyncio.gather(first, third)
    assert ran == ["third"]


async def test_what_waits_when_the_threads_are_closed_is_given_up():
    workers, gate = Workers(), threading.Event()
    first = calling(workers, "acme", LONG_SIZE + 1, lambda: gate.wait(10))
    await asyncio.sleep(0)
    waiting = calling(workers, "acme", LONG_SIZE + 1, lambda: 1)
    await asyncio.sleep(0)
    workers.close()
    gate.set()
    assert await first
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_one_of_several_tenants_may_have_three_quarters_of_what_is_under_way():
    admission = Admission(8, 8000, shared=True)
    held = [admission.enter(100, "greedy") for _ in range(6)]
    for one in held:
        one.__enter__()
    with pytest.raises(Exhausted, match="may have 6 of 6000 bytes"), admission.enter(100, "greedy"):
        pass
    with admission.enter(100, "modest"), admission.enter(100, "modest"):
        with pytest.raises(Exhausted, match="of max_concurrent_calls 8"), admission.enter(100, "third"):
            pass
    for one in held:
        one.__exit__(None, None, None)
    with admission.enter(5000, "greedy"):
        with pytest.raises(Exhausted, match="5000 bytes are under way"), admission.enter(1001, "greedy"):
            pass
        with admission.enter(3000, "modest"):
            pass
    with admission.enter(8000, "greedy"):  # one call of any size
        pass


def test_where_nobody_is_asked_everything_is_everybodys():
    admission = Admission(8, 8000)
    held = [admission.enter(1000) for _ in range(8)]
    for one in held:
        one.__enter__()
    with pytest.raises(Exhausted), admission.enter(1):
        pass


async def test_a_tenant_is_answered_while_another_sends_as_many_long_texts_as_it_can(open_server, tmp_path):
    file = tmp_path / "keys.json"
    shown = [new_key(file, NewKey(tenant=tenant, scopes=tuple(Scope)))[1] for tenant in ("greedy", "modest")]
    async with open_server(max_message_bytes=2**18, identity={"key_file": str(file)}) as server:
        async with connect(server, credential=shown[0]) as greedy, connect(server, credential=shown[1]) as modest:
            attack = [asyncio.create_task(greedy.tokenize("tea " * 60_000)) for _ in range(24)]
            for _ in range(5):
                await modest.generate("tea", sampling=SHORT)
                assert await modest.tokenize("tea " * 20_000)
            done = await asyncio.gather(*attack, return_exceptions=True)
    assert sum(isinstance(one, Exhausted) for one in done) >= 10
    assert sum(isinstance(one, list | tuple) for one in done) >= 5
