"""Two pods, each a whole server, on one real Valkey: what one does is what the other answers with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from support.redis_server import RedisServer, until
from support.server_running import connect

from hope_serve.api import MemoryChoice, Owner, SamplingParams
from hope_serve.errors import FailedPrecondition, NotFound, Unavailable
from hope_serve.identity import EVERYBODY
from hope_serve.memory.redis.make import install_functions

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
LESSONS = ["My dog is called Biscuit. " * 8, "I like tea without sugar. " * 8, "My sister lives in Bergen. " * 8]
ANN = EVERYBODY.owner("ann")
PARTS = ("0.delta", "0.gradient", "1.delta", "1.gradient", "1.slot0")


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("valkey"), appendonly="no").start()
    yield server
    server.kill()


@pytest.fixture
async def open_pod(valkey, open_server):
    valkey.command("FLUSHALL")
    await install_functions(valkey.url)

    @asynccontextmanager
    async def opened(**changes):
        settings = {"url": valkey.url, "durability": "volatile", "deterministic": True} | changes
        async with open_server(**settings) as server, connect(server) as client:
            client.service = server.service
            yield client

    return opened


@pytest.fixture
async def pods(open_pod):
    async with open_pod() as first, open_pod() as second:
        yield first, second


async def said(pod, user="ann", **choice):
    answer = await pod.generate("My dog", user_id=user, sampling=GREEDY, memory=MemoryChoice(**choice))
    return answer.started.memory_version, answer.choices[0].token_ids


async def test_what_one_pod_learned_the_other_reads_at_once(pods):
    one, two = pods
    for lesson in LESSONS:
        version = (await one.adapt("ann", lesson)).version
        assert await said(two, min_version=version) == await said(one, exact_version=version)
    assert version == 3


async def test_a_warm_memory_that_another_pod_moved_on_from_is_refreshed(pods):
    one, two = pods
    await one.adapt("ann", LESSONS[0])
    before = await said(two)
    assert (await two.warm_memory("ann")).was_warm
    await one.adapt("ann", LESSONS[1])
    assert not (await two.warm_memory("ann")).was_warm
    after = await said(two)
    assert (before[0], after[0]) == (1, 2)
    assert after == await said(one)


async def test_versions_are_exact_on_every_pod_and_one_that_is_not_there_yet_is_said_so(pods):
    one, two = pods
    await one.adapt("ann", LESSONS[0])
    old = await said(one)
    await one.adapt("ann", LESSONS[1])
    assert await said(two, exact_version=1) == old
    with pytest.raises(NotFound, match=r"min_version is 3.*version 2"):
        await said(two, min_version=3)
    await one.adapt("ann", LESSONS[2])
    assert (await said(two, min_version=3))[0] == 3


async def test_a_retry_on_another_pod_is_answered_with_the_first_result(pods):
    one, two = pods
    first = await one.adapt("ann", LESSONS[0], request_id="r")
    again = await two.adapt("ann", LESSONS[0], request_id="r")
    assert (again.version, again.state_digest, again.duplicate) == (first.version, first.state_digest, True)


async def test_adapts_on_both_pods_at_once_are_all_applied_in_some_order(pods):
    one, two = pods
    calls = [pod.adapt("ann", LESSONS[i % 3], request_id=f"{i}") for i in range(4) for pod in (one, two)]
    results = await asyncio.gather(*calls)
    assert sorted({result.version for result in results}) == [1, 2, 3, 4]
    listed = await one.list_versions("ann")
    assert [(line.version, line.base_version) for line in listed] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert sorted(line.request_id for line in listed) == ["0", "1", "2", "3"]
    assert await said(one) == await said(two)


async def test_an_erasure_on_one_pod_frees_the_others_copy_and_it_answers_without_memory(pods):
    one, two = pods
    await one.adapt("ann", LESSONS[0])
    plain = await said(two, user="")
    await said(two)
    assert _is_warm(two, ANN)
    await one.delete_memory("ann")
    await until(lambda: not _is_warm(two, ANN))
    assert await said(two) == (0, plain[1])
    with pytest.raises(NotFound):
        await two.get_memory("ann")
    assert (await two.adapt("ann", LESSONS[1])).version > 1


async def test_a_stale_writer_is_told_that_the_memory_was_erased_and_writes_nothing(pods, monkeypatch):
    one, two = pods
    await one.adapt("ann", LESSONS[0])
    store = two.service.memories.store
    reached, go_on, commit = asyncio.Event(), asyncio.Event(), store.commit

    async def held(*arguments):
        reached.set()
        await go_on.wait()
        return await commit(*arguments)

    monkeypatch.setattr(store, "commit", held, raising=False)
    late = asyncio.create_task(two.adapt("ann", LESSONS[1], request_id="late"))
    await reached.wait()
    await one.delete_memory("ann")
    go_on.set()
    with pytest.raises(FailedPrecondition) as refused:
        await late
    assert refused.value.reason == "MEMORY_ERASED"
    assert (await said(one))[0] == (await said(two))[0] == 0


async def test_levels_that_did_not_move_are_not_written_again(open_pod, monkeypatch):
    """Of the tiny model, 16 tokens end a chunk of the first level and leave the second where it was."""
    async with open_pod() as pod:
        store = pod.service.memories.store
        written, commit = [], store.commit

        async def counted(*arguments):
            outcome = await commit(*arguments)
            written.append(outcome.bytes_written)
            return outcome

        monkeypatch.setattr(store, "commit", counted, raising=False)
        for i, count in enumerate((33, 17, 2)):  # ends both levels' chunks, the first level's, nobody's
            await pod.adapt("ann", list(range(10, 10 + count)), request_id=str(i))
    blank = pod.service.memories.codec.blank().cms.tensors()
    part = {prefix: 2 * sum(t.numel() for n, t in blank.items() if n.startswith(prefix)) for prefix in PARTS}
    moved = [
        part["0.delta"] + part["1.delta"] + part["1.slot0"],
        part["0.delta"] + part["1.gradient"],
        part["0.gradient"] + part["1.gradient"],
    ]
    least = min(part.values())
    for size, expected in zip(written, moved, strict=True):
        assert expected < size < expected + least  # what is over is the manifest, smaller than any part


async def test_a_warm_memory_takes_as_much_ram_as_it_is_counted_for(pods):
    one, two = pods
    await one.adapt("ann", LESSONS[0])
    await two.warm_memory("ann")
    for pod in pods:
        warm = pod.service.memories._warm[ANN]
        held = sum(t.untyped_storage().nbytes() for t in (*warm.learned.cms.tensors().values(), warm.reads))
        assert held == pod.service.memories.codec.warm_bytes


def _is_warm(pod, owner: Owner) -> bool:
    return owner in pod.service.memories._warm


async def test_who_is_resident_is_answered_while_the_store_is_away(pods, valkey):
    one, two = pods
    version = (await one.adapt("ann", LESSONS[0])).version
    await two.adapt("bob", LESSONS[1])
    expected = await said(one)
    valkey.kill()
    try:
        assert await said(one) == await said(one, min_version=version) == expected
        for call in (said(one, user="bob"), said(one, min_version=version + 1), one.adapt("ann", LESSONS[2])):
            with pytest.raises(Unavailable):
                await call
    finally:
        valkey.start()
