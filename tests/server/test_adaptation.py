"""AdaptationService, and learning after Generate, through a real client."""

from __future__ import annotations

import asyncio
import math

import pytest
from support.server_running import connect

from hope_serve.api import AdaptMode, AdaptOptions, Durability, Learn, Message, SamplingParams, Source
from hope_serve.errors import Exhausted, NotFound, RequestIdReused, VersionConflict

GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
FACTS = "My dog is called Biscuit, and my sister lives in Bergen. " * 4


async def test_an_adapt_is_durable_counted_and_read_by_the_next_generation(client):
    done = await client.adapt("ann", FACTS, source=Source(id="notes", uri="file:///notes", time=1.5))
    assert (done.version, done.base_version, done.durability) == (1, 0, Durability.LOCAL_FSYNC)
    assert done.metrics.tokens_used == done.metrics.tokens_given - 1 > 50
    assert done.metrics.nll_after < done.metrics.nll_before
    assert (await client.generate("My dog", sampling=GREEDY, user_id="ann")).started.memory_version == 1
    report = await client.get_memory("ann")
    assert report.state_digest == done.state_digest
    assert report.sources == (Source(id="notes", uri="file:///notes", time=1.5),)


async def test_a_repeated_request_id_answers_with_the_first_result(client):
    first = await client.adapt("ann", FACTS, request_id="once")
    again = await client.adapt("ann", FACTS, request_id="once")
    assert again.duplicate
    assert not first.duplicate
    assert (again.version, again.state_digest) == (first.version, first.state_digest)


@pytest.mark.parametrize(
    "changes", [{"content": "other"}, {"options": AdaptOptions(passes=2)}, {"expected_version": 0}]
)
async def test_a_request_id_with_another_payload_is_refused(client, changes):
    await client.adapt("ann", FACTS, request_id="once")
    with pytest.raises(RequestIdReused):
        await client.adapt("ann", **({"content": FACTS, "request_id": "once"} | changes))


async def test_an_expected_version_that_is_not_the_head_conflicts_and_names_the_head(client):
    await client.adapt("ann", FACTS)
    with pytest.raises(VersionConflict) as conflict:
        await client.adapt("ann", FACTS, expected_version=0)
    assert conflict.value.head == 1
    assert (await client.adapt("ann", FACTS, expected_version=1)).version == 2


async def test_a_dry_run_tells_and_keeps_nothing(client):
    done = await client.adapt("ann", FACTS, options=AdaptOptions(mode=AdaptMode.DRY_RUN))
    assert done.metrics.skip_reason
    assert math.isfinite(done.metrics.nll_after)
    assert [line async for line in client.list_memories()] == []


@pytest.mark.parametrize("learn", Learn)
async def test_an_exchange_is_learned_after_its_answer(client, learn):
    turns = [
        Message(role="user", text="An older question."),
        Message(role="assistant", text="An older answer."),
        Message(role="user", text="My dog is called Biscuit."),
    ]
    answer = await client.generate(turns, user_id="ann", sampling=GREEDY, learn=learn, request_id="turn")
    version = await _version(client, "ann", 1)
    assert version.request_id == "turn.learn"
    assert version.source.id == "turn"
    taught = turns[2:] if learn is Learn.USER_TURNS else [*turns[2:], _said(answer)]
    assert (await client.get_memory("ann")).tokens_learned == await _num_learned(client, taught)


async def test_what_a_turn_taught_is_what_adapt_would_have_taught(client):
    turn = [Message(role="user", text=FACTS)]
    await client.generate(turn, user_id="ann", sampling=GREEDY, learn=Learn.USER_TURNS)
    await _version(client, "ann", 1)
    taught = await client.adapt("bob", turn)
    assert (await client.get_memory("ann")).state_digest == taught.state_digest


async def test_learning_starts_although_the_reader_hangs_up_after_the_last_event(client):
    events = client.stream([Message(role="user", text=FACTS)], user_id="ann", sampling=GREEDY, learn=Learn.USER_TURNS)
    async for event in events:
        if getattr(event, "finish_reason", None):
            break
    await events.aclose()
    assert (await _version(client, "ann", 1)).version == 1


async def test_a_cancelled_generation_teaches_nothing(client):
    long = SamplingParams(max_tokens=2**20, ignore_eos=True)
    events = client.stream([Message(role="user", text=FACTS)], user_id="ann", sampling=long, learn=Learn.USER_TURNS)
    await anext(events)
    await events.aclose()
    await asyncio.sleep(0.3)
    assert [line async for line in client.list_memories()] == []


async def test_a_full_backlog_refuses_before_the_answer(open_server):
    async with open_server(max_background_learning=1) as server, connect(server) as client:
        long = SamplingParams(max_tokens=2**20, ignore_eos=True)
        turn = [Message(role="user", text="hi")]
        first = client.stream(turn, user_id="ann", sampling=long, learn=Learn.USER_TURNS)
        await anext(first)
        with pytest.raises(Exhausted, match="max_background_learning"):
            await anext(client.stream(turn, user_id="bob", sampling=long, learn=Learn.USER_TURNS))
        await first.aclose()


def _said(generation) -> Message:
    return Message(role="assistant", text=generation.choices[0].text)


async def _num_learned(client, turns) -> int:
    return (
        len(await client.tokenize(turns)) - 2
    )  # the first has nothing before it; the opening of a reply is not taught


async def _version(client, user, number):
    """The version, once it is there."""
    async with asyncio.timeout(10):
        while True:
            try:
                return (await client.list_versions(user))[number - 1]
            except (NotFound, IndexError):
                await asyncio.sleep(0.02)
