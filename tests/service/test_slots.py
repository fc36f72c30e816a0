"""Many users on few slots: what one leaves in a slot reaches nobody, and whoever waits is served in the end."""

from __future__ import annotations

import asyncio

import pytest
from support.device_guard import guarded_threads
from support.engine_calls import adapt, generate, generate_all, ids

from hope_serve.api import AdaptMode, Owner, ScoreRequest

PEOPLE = [Owner(tenant="default", user=f"user-{i}") for i in range(4)]


async def crowd(engine):
    """Four people on whatever slots there are: memories, conversations, choices, scores and lessons."""
    replies = await asyncio.gather(
        *(generate(engine, ids(i, 5 + 6 * i), owner=who, max_tokens=8, logprobs=3) for i, who in enumerate(PEOPLE)),
        *(generate(engine, ids(20 + i, 9), max_tokens=4 + i, logprobs=3) for i in range(4)),
    )
    choices = await generate_all(engine, ids(30, 7), n=2, temperature=1.0, seed=1, logprobs=3)
    score = await engine.score(
        ScoreRequest(prompt=tuple(ids(31, 9)), continuations=((7, 8, 9), (10,)), owner=PEOPLE[0])
    )
    dry = [
        adapt(engine, ids(40 + i, 40), owner=who, mode=AdaptMode.DRY_RUN, request_id=f"dry-{i}")
        for i, who in enumerate(PEOPLE[:3])
    ]
    losses = [result.metrics.nll_after for result in await asyncio.gather(*dry)]
    logprobs = [entry.logprob for reply in (*replies, *choices) for entry in reply.logprobs]
    return logprobs, [one.token_logprobs for one in score], losses


async def teach(engine):
    for i, who in enumerate(PEOPLE):
        await adapt(engine, ids(50 + i, 40), owner=who, request_id=f"teach-{i}")


async def test_freed_slots_are_poisoned_and_nothing_of_it_surfaces(open_engine, monkeypatch):
    """With every freed slot full of NaN all numbers are those of clean slots, to the bit."""
    with guarded_threads(monkeypatch) as (_, devices):
        said = []
        for poison in (False, True):
            async with open_engine(deterministic=True, max_slots=3, max_lessons=2, poison_slots=poison) as engine:
                if not poison:
                    await teach(engine)
                said.append([await crowd(engine) for _ in range(2)])
    (clean, poisoned), (_, device) = said, devices
    assert poisoned == clean
    for slab in (device.pools.state, device.teaching._state, device.teaching._learned):
        floats = [view[1:] for view in slab.views.values() if view.is_floating_point()]
        assert all(view.isnan().all() for view in floats)  # everybody has left


async def test_more_users_than_slots_are_all_answered_as_if_alone(open_engine):
    """One slot, room for one warm memory, four people with memories: they wait, and get what they get alone."""
    async with open_engine(deterministic=True, max_slots=8) as engine:
        await teach(engine)
        room = engine.memories.codec.warm_bytes
        alone = [await generate(engine, ids(1, 9), owner=who, max_tokens=10, logprobs=3) for who in PEOPLE]
    async with open_engine(deterministic=True, max_slots=1, max_lessons=1, max_warm_bytes=room) as engine:
        for _ in range(2):
            asked = [generate(engine, ids(1, 9), owner=who, max_tokens=10, logprobs=3) for who in PEOPLE]
            lessons = [
                adapt(engine, ids(2, 40), mode=AdaptMode.DRY_RUN, owner=who, request_id=who.user) for who in PEOPLE
            ]
            together = await asyncio.gather(*asked, *lessons)
            assert [reply.logprobs for reply in together[: len(PEOPLE)]] == [reply.logprobs for reply in alone]
    assert len({tuple(reply.tokens) for reply in alone}) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_tokens": 8, "max_slots": 2},
        {"max_slots": 2, "max_warm_bytes": 0},
        {"max_slots": 16, "max_lessons": 1, "adapt_step_ms": 0.0},
    ],
    ids=["short cuts in two slots", "no warm memories", "lessons one by one"],
)
async def test_deterministic_numbers_depend_on_no_neighbour_cut_eviction_or_tier(open_engine, options):
    """A process of its own, other slots, memories from the store each time, other cuts of prompts: the same bits."""
    async with open_engine(deterministic=True) as engine:
        await teach(engine)
        wanted = await crowd(engine)
    async with open_engine(deterministic=True, **options) as engine:
        assert await crowd(engine) == wanted
        for who in PEOPLE:
            engine.memories.forget(who)
        assert await crowd(engine) == wanted


async def test_a_conversation_that_left_its_slot_goes_on_bit_for_bit(open_engine):
    said = []
    async with open_engine(deterministic=True, max_slots=2) as engine:
        for who, others in ((PEOPLE[0], 0), (PEOPLE[1], 4)):
            turn = lambda prompt, who=who: generate(engine, prompt, owner=who, session_id="s", max_tokens=9, logprobs=3)
            first = await turn(ids(1, 16))
            await asyncio.gather(*(generate(engine, ids(i, 20), max_tokens=12) for i in range(others)))
            said.append(first.logprobs + (await turn(ids(2, 3))).logprobs)
    assert said[0] == said[1]
