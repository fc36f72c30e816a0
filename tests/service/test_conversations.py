"""Conversations kept by session id: the next turn goes on where the last one stopped, on any engine."""

from __future__ import annotations

import asyncio

import pytest
from support.engine_calls import ANN, BOB, adapt, generate, ids

from hope_serve.api import GenerateRequest, MemoryChoice, SamplingParams
from hope_serve.errors import InvalidRequest, NotFound, VersionConflict

TURNS = (ids(1, 11), ids(2, 3), ids(3, 17))


async def talk(engine, turns, **options):
    return [await generate(engine, turn, owner=ANN, session_id="s", logprobs=3, **options) for turn in turns]


async def test_conversation_resumed_after_a_restart_is_the_uninterrupted_one_bit_for_bit(open_engine):
    async with open_engine(deterministic=True) as engine:
        whole = [await generate(engine, t, owner=ANN, session_id="whole", logprobs=3, max_tokens=9) for t in TURNS]
    resumed = []
    for turn in TURNS:
        async with open_engine(deterministic=True) as engine:
            resumed.append(await generate(engine, turn, owner=ANN, session_id="parts", logprobs=3, max_tokens=9))
    assert [r.logprobs for r in resumed] == [r.logprobs for r in whole]
    assert [r.session for r in resumed] == ["fresh", "resumed", "resumed"]


async def test_resumed_turn_equals_one_long_prompt(engine):
    """The state carries exactly the tokens of the turns before, the unfed last one included."""
    first = await generate(engine, TURNS[0], owner=ANN, session_id="s", max_tokens=7)
    second = await generate(engine, TURNS[1], owner=ANN, session_id="s", max_tokens=7)
    long = await generate(engine, [*TURNS[0], *first.tokens, *TURNS[1]], max_tokens=7)
    assert second.tokens == long.tokens


async def test_conversation_keeps_its_memory_version_until_asked_to_move(engine):
    await adapt(engine, ids(7, 30))
    began = await generate(engine, TURNS[0], owner=ANN, session_id="s")
    await adapt(engine, ids(8, 30), request_id="r2")
    stayed = await generate(engine, TURNS[1], owner=ANN, session_id="s")
    moved = await generate(engine, TURNS[2], owner=ANN, session_id="s", memory=MemoryChoice(move_session=True))
    after = await generate(engine, TURNS[2], owner=ANN, session_id="s")
    assert [r.version for r in (began, stayed, moved, after)] == [1, 1, 2, 2]


async def test_conversation_begun_without_a_memory_stays_without(engine):
    await generate(engine, TURNS[0], owner=ANN, session_id="s")
    await adapt(engine, ids(8, 30))
    assert (await generate(engine, TURNS[1], owner=ANN, session_id="s")).version == 0
    move = MemoryChoice(move_session=True)
    assert (await generate(engine, TURNS[1], owner=ANN, session_id="s", memory=move)).version == 1


async def test_version_that_is_no_longer_kept_is_named_not_replaced(engine):
    await adapt(engine, ids(1, 20), request_id="r0")
    await generate(engine, TURNS[0], owner=ANN, session_id="s")
    for i in range(1, 5):
        await adapt(engine, ids(i, 20), request_id=f"r{i}")
    with pytest.raises(NotFound):
        await generate(engine, TURNS[1], owner=ANN, session_id="s")
    moved = await generate(engine, TURNS[1], owner=ANN, session_id="s", memory=MemoryChoice(move_session=True))
    assert moved.version == 5 and moved.session == "resumed"


async def test_second_turn_at_the_same_time_is_refused(engine):
    slow = GenerateRequest(
        prompt=tuple(TURNS[0]),
        owner=ANN,
        session_id="s",
        sampling=SamplingParams(temperature=0.0, max_tokens=2000, ignore_eos=True),
    )
    stream = engine.generate(slow)
    await anext(stream)
    with pytest.raises(VersionConflict) as refused:
        await generate(engine, TURNS[1], owner=ANN, session_id="s")
    assert refused.value.reason == "SESSION_CONFLICT"
    await stream.aclose()


async def test_turn_finished_on_another_engine_meanwhile_is_refused(open_engine):
    async with open_engine() as one, open_engine() as two:
        stream = one.generate(
            GenerateRequest(
                prompt=tuple(TURNS[0]),
                owner=ANN,
                session_id="s",
                sampling=SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True),
            )
        )
        await anext(stream)
        await generate(two, TURNS[1], owner=ANN, session_id="s", max_tokens=2)
        with pytest.raises(VersionConflict):
            async for _ in stream:
                await asyncio.sleep(0)


async def test_abandoned_turn_leaves_the_conversation_as_it_was(engine):
    await generate(engine, TURNS[0], owner=ANN, session_id="s", max_tokens=5)
    request = GenerateRequest(
        prompt=tuple(TURNS[1]),
        owner=ANN,
        session_id="s",
        sampling=SamplingParams(temperature=0.0, max_tokens=5000, ignore_eos=True),
    )
    stream = engine.generate(request)
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    after = await generate(engine, TURNS[1], owner=ANN, session_id="s", max_tokens=5)
    await generate(engine, TURNS[0], owner=BOB, session_id="s", max_tokens=5)
    undisturbed = await generate(engine, TURNS[1], owner=BOB, session_id="s", max_tokens=5)
    assert after.tokens == undisturbed.tokens and after.session == "resumed"


async def test_deleted_conversation_begins_anew(engine):
    await generate(engine, TURNS[0], owner=ANN, session_id="s")
    assert await engine.memories.delete_session(ANN, "s")
    assert not await engine.memories.delete_session(ANN, "s")
    assert (await generate(engine, TURNS[0], owner=ANN, session_id="s")).session == "fresh"


async def test_several_choices_cannot_continue_one_conversation(engine):
    with pytest.raises(InvalidRequest, match=r"sampling.n: 2 choices cannot continue one session"):
        await generate(engine, TURNS[0], owner=ANN, session_id="s", n=2)


async def test_turn_may_send_nothing_new(engine):
    first = await generate(engine, TURNS[0], owner=ANN, session_id="s", max_tokens=5)
    more = await generate(engine, [], owner=ANN, session_id="s", max_tokens=5)
    whole = await generate(engine, TURNS[0], max_tokens=10)
    assert first.tokens + more.tokens == whole.tokens
