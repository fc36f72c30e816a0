"""The deployed proxy, run: users stay on their pod, calls go round pods that refuse, and no turn is taken twice."""

from __future__ import annotations

import subprocess
from collections import Counter

import pytest
from support.envoy import DEPLOYED, envoy_binary

from hope_serve.client import AsyncHopeClient
from hope_serve.client.affinity import affinity_of
from hope_serve.client.channel import ChannelOptions
from hope_serve.errors import HopeError, Unavailable
from hope_serve.pb.hope.v1 import adaptation_pb2, inference_pb2

DRAINING = Unavailable("the server is draining", reason="DRAINING")
NUM_USERS = 40
"""So many that a pod without any of them, whatever the ports, is a matter of one in ten million."""
UNKNOWN_OUTCOME = Unavailable("the store went away", reason="STORE_UNAVAILABLE")


@pytest.fixture
async def client(fleet):
    async with AsyncHopeClient(fleet[0].target, ChannelOptions(timeout_seconds=20, retries=False)) as connected:
        yield connected


def test_the_configuration_is_valid_as_it_is_deployed():
    checked = subprocess.run(
        [envoy_binary(), "--mode", "validate", "-c", str(DEPLOYED)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_a_user_is_told_by_a_value_that_names_nobody():
    [(key, value)] = affinity_of(adaptation_pb2.AdaptRequest(user_id="zoë@example.org"))
    assert key == "x-hope-user"
    assert len(value) == 4
    assert value.isascii()
    assert affinity_of(inference_pb2.GetModelRequest()) == affinity_of(adaptation_pb2.AdaptRequest()) == ()
    values = Counter(affinity_of(adaptation_pb2.AdaptRequest(user_id=f"user-{i}"))[0][1] for i in range(10_000))
    assert 8_000 < len(values) < 10_000  # spread widely, and not one value a user


async def test_all_calls_of_a_user_reach_one_pod_and_users_reach_all_pods(fleet, client):
    _, pods = fleet
    homes = set()
    for number in range(NUM_USERS):
        user = f"user-{number}"
        before = [pod.seen.total() for pod in pods]
        await client.adapt(user, [6, 7])
        await client.generate([6, 7], user_id=user)
        async for _ in client.stream([6, 7], user_id=user):
            pass
        grown = [pod.seen.total() - count for pod, count in zip(pods, before, strict=True)]
        assert sorted(grown) == [0, 0, 3]
        homes.add(grown.index(3))
    assert homes == {0, 1, 2}


async def test_calls_of_no_user_go_anywhere(fleet, client):
    for _ in range(30):
        await client.get_model()
    assert all(pod.seen["GetModel"] for pod in fleet[1])
    assert all("x-hope-user" not in pod.headers for pod in fleet[1])


async def test_a_pod_that_is_not_ready_gets_no_calls_and_its_users_go_elsewhere(fleet, client):
    envoy, pods = fleet
    await pods[0].set_ready(False)
    await envoy.until_healthy(2)
    for number in range(NUM_USERS):
        await client.adapt(f"user-{number}", [6, 7])
    assert pods[0].seen.total() == 0


async def test_what_a_draining_pod_refuses_is_answered_by_another(fleet, client):
    _, pods = fleet
    pods[0].refusal = DRAINING
    for number in range(NUM_USERS):
        user = f"user-{number}"
        await client.adapt(user, [6, 7])
        await client.generate([6, 7], user_id=user)
        async for _ in client.stream([6, 7], user_id=user):
            pass
    assert pods[0].seen.total() > 0
    assert sum(pod.seen.total() for pod in pods[1:]) == 3 * NUM_USERS


async def test_an_adapt_whose_outcome_is_unknown_is_sent_again(fleet, client):
    _, pods = fleet
    pods[0].refusal = UNKNOWN_OUTCOME
    for number in range(NUM_USERS):
        await client.adapt(f"user-{number}", [6, 7])
    assert pods[0].seen["Adapt"] > 0


async def test_a_turn_that_may_have_been_taken_is_not_taken_again(fleet, client):
    _, pods = fleet
    for pod in pods:
        pod.refusal = UNKNOWN_OUTCOME
    with pytest.raises(Unavailable) as refused:
        await client.generate([6, 7], user_id="ann")
    assert refused.value.reason == "STORE_UNAVAILABLE"
    assert sum(pod.seen["Generate"] for pod in pods) == 1


async def test_a_stream_that_has_begun_is_not_begun_again(fleet, client):
    _, pods = fleet
    for pod in pods:
        pod.breaks_off = True
    with pytest.raises(HopeError, match="the rest is lost"):
        async for _ in client.stream([6, 7], user_id="ann"):
            pass
    assert sum(pod.seen["GenerateStream"] for pod in pods) == 1


async def test_a_pod_that_is_gone_takes_no_call_with_it(fleet, client):
    envoy, pods = fleet
    await pods[1].__aexit__()
    for number in range(NUM_USERS):
        await client.adapt(f"user-{number}", [6, 7])
        await client.generate([6, 7], user_id=f"user-{number}")
    await envoy.until_healthy(2)
