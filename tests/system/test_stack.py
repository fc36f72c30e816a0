"""Pods behind a real Envoy, on a real valkey, seen by a real Prometheus: they come, go and are killed; nobody minds."""

from __future__ import annotations

import asyncio
import time
import urllib.request

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from support.dashboards import pages, queries
from support.redis_server import until
from support.stack import Stack
from support.stack_users import SHORT, Users, patient
from support.tiny_model import write_tiny_checkpoint

from deploy.grafana.draw import draw
from hope_serve.client import AsyncHopeClient, Learn, MemoryChoice, Message
from hope_serve.errors import Unavailable

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]
LOAD_SECONDS = 3.0
DATA_SECONDS = 90.0
NUM_USERS = 8
MANY_USERS = 32
"""Of four pods one is nobody's home of so many once in ten thousand rings; of eight, one time in ten."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    async with Stack(folder, write_tiny_checkpoint(folder / "checkpoint", num_layers=1)) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(stack):
    async with AsyncHopeClient(stack.envoy.target, patient(retries=False)) as connected:
        yield connected


async def test_a_users_calls_reach_one_pod(stack, client):
    homes = set()
    users = (f"home-{number}" for number in range(40))
    while homes != {0, 1, 2}:
        user = next(users)
        before = [await calls_of(pod) for pod in stack.pods]
        await client.adapt(user, [6, 7, 8])
        await client.generate([6, 7], user_id=user, sampling=SHORT)
        await client.get_memory(user)
        grown = [await calls_of(pod) - count for pod, count in zip(stack.pods, before, strict=True)]
        assert sorted(grown) == [0, 0, 3]
        homes.add(grown.index(3))


async def test_any_pod_is_right_without_affinity(stack, client):
    for number in range(4):
        user = f"anywhere-{number}"
        taught = await client.adapt(user, [6, 7, 8, 9] * 5)
        answers = set()
        for pod in stack.pods:
            async with AsyncHopeClient(pod.target, patient(retries=False)) as direct:
                choice = MemoryChoice(min_version=taught.version)
                answer = await direct.generate([6, 7, 8], user_id=user, sampling=SHORT, memory=choice)
                assert answer.started.memory_version == taught.version
                assert (await direct.get_memory(user)).state_digest == taught.state_digest
                answers.add(answer.choices[0].token_ids)
        assert len(answers) == 1


async def test_a_pod_that_is_added_takes_its_share(stack, client):
    users = Users(stack.envoy.target, [f"added-{number}" for number in range(MANY_USERS)])
    async with users.calling():
        await asyncio.sleep(LOAD_SECONDS)
        pod = await stack.add_pod()
        await until(lambda: _calls(_scraped(pod)), 60)
    assert users.failures == []
    assert users.broken_promises == []
    await users.check_promises(client)


async def test_a_killed_pod_loses_no_lesson_and_only_the_answers_it_was_giving(stack, client):
    users = Users(stack.envoy.target, [f"killed-{number}" for number in range(NUM_USERS)])
    async with users.calling():
        await asyncio.sleep(LOAD_SECONDS)
        pod = stack.pods[-1]
        await stack.kill_pod(pod)
        await asyncio.sleep(LOAD_SECONDS)
        await stack.forget_pod(pod)
        await asyncio.sleep(LOAD_SECONDS)
    assert all(call != "Adapt" and isinstance(error, Unavailable) for call, error in users.failures), users.failures
    assert len(users.failures) <= NUM_USERS
    assert users.broken_promises == []
    await users.check_promises(client)


async def test_a_rolling_restart_under_load_fails_no_call_and_loses_no_lesson(stack, client):
    users = Users(stack.envoy.target, [f"rolling-{number}" for number in range(NUM_USERS)])
    old = list(stack.pods)
    async with users.calling():
        await asyncio.sleep(LOAD_SECONDS)
        for pod in old:
            await stack.replace_pod(pod)
    assert not {pod.pid for pod in old} & {pod.pid for pod in stack.pods}
    assert users.calls > NUM_USERS * 10
    assert users.failures == []
    assert users.broken_promises == []
    await users.check_promises(client)


async def test_every_panel_of_every_dashboard_has_data(stack, client):
    users = Users(stack.envoy.target, [f"seen-{number}" for number in range(NUM_USERS)])
    async with users.calling():
        await some_of_everything(client)
        version = (await client.adapt("restored", [6, 7, 8])).version
        await asyncio.sleep(2 * LOAD_SECONDS)

        def without_data():
            return [str(asked) for asked in queries(window="1m") if not stack.prometheus.query(asked.expression)]

        give_up = time.monotonic() + DATA_SECONDS
        while missing := await asyncio.to_thread(without_data):
            assert time.monotonic() < give_up, missing
            version = await client.rollback_memory("restored", version)  # no tier but the store holds it now
            await client.generate([6, 7], user_id="restored", sampling=SHORT)
            await asyncio.sleep(0.2)
    assert users.failures == []
    drawn = await asyncio.to_thread(draw, pages()["on-call"], stack.prometheus.url, 60.0)
    shown = [axis for axis in drawn.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown if not axis.lines] == []


async def some_of_everything(client):
    """What the users do not do: repeat a lesson, talk, learn from talking."""
    for _ in range(2):
        await client.adapt("seen-0", [6, 7, 8, 9] * 20, request_id="twice")
    for _ in range(2):
        await client.generate([6, 7], user_id="seen-1", session_id="talk", sampling=SHORT)
    await client.generate([Message(role="user", text="tea")], user_id="seen-2", sampling=SHORT, learn=Learn.USER_TURNS)


async def calls_of(pod):
    """Calls that a pod has answered."""
    return _calls(await asyncio.to_thread(_scraped, pod))


def _calls(text):
    families = text_string_to_metric_families(text)
    return sum(s.value for family in families for s in family.samples if s.name == "hope_requests_total")


def _scraped(pod):
    with urllib.request.urlopen(f"http://{pod.metrics}/metrics") as reply:
        return reply.read().decode()
