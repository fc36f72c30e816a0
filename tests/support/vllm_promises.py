"""What vLLM must do as the native engine does it, whatever the kind of layers: tests over a fixture called ``both``."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from support.engine_calls import ANN, BOB, adapt, generate, generate_all
from support.vllm_pair import text

from hope_serve.api import GenerateRequest, MemoryChoice, OnMissing, Owner, SamplingParams, ScoreRequest, Started
from hope_serve.api.generate import Delta, FinishReason
from hope_serve.errors import DeadlineExceeded, Exhausted, FailedPrecondition, InvalidRequest, NotFound

AS_CLOSE = 2.0
"""Times the native engine's own distance from 64 bits."""
LEAST_NOISE = 2e-6
"""Nats: of a likelihood in 32 bits, whoever computes it."""


async def test_greedy_replies_are_the_native_engines(both):
    for seed, length in enumerate((1, 7, 33, 70)):
        ours, theirs = [
            await generate(s, text(seed, length), max_tokens=20, logprobs=3) for s in (both.native, both.vllm)
        ]
        assert theirs.tokens == ours.tokens
        assert theirs.end.usage == ours.end.usage
        assert theirs.end.finish_reason is FinishReason.LENGTH
        assert [[token for token, _ in one.top] for one in theirs.logprobs] == [
            [token for token, _ in one.top] for one in ours.logprobs
        ]


async def test_a_memory_that_the_native_engine_learned_is_read(both):
    await adapt(both.native, text(90, 70), owner=ANN, request_id="ann-1")
    ours, theirs, plain = [
        await generate(service, text(3, 33), owner=owner, max_tokens=20)
        for service, owner in ((both.native, ANN), (both.vllm, ANN), (both.vllm, None))
    ]
    assert theirs.version == ours.version >= 1
    assert theirs.tokens == ours.tokens != plain.tokens


async def test_each_version_is_read_as_it_was(both):
    carl = Owner(tenant="default", user="carl")
    for i in (1, 2):
        await adapt(both.native, text(70 + i, 60), owner=carl, request_id=f"carl-{i}")
    for version in (1, 2):
        choice = MemoryChoice(exact_version=version)
        ours, theirs = [
            await generate(s, text(5, 20), owner=carl, memory=choice, max_tokens=16) for s in (both.native, both.vllm)
        ]
        assert (theirs.version, theirs.tokens) == (version, ours.tokens)


async def test_more_requests_than_slots_and_every_length_at_once(both):
    """Prompts are longer than a step, so that they are cut wherever it ends, among others' tokens."""
    await adapt(both.native, text(91, 40), owner=BOB, request_id="bob-1")
    asked = [(text(20 + i, 3 + 17 * i % 90), BOB if i % 3 else None, 3 + i % 9) for i in range(14)]
    theirs = await asyncio.gather(*(generate(both.vllm, p, owner=o, max_tokens=n) for p, o, n in asked))
    for (prompt, owner, count), reply in zip(asked, theirs, strict=True):
        assert reply.tokens == (await generate(both.native, prompt, owner=owner, max_tokens=count)).tokens


async def test_a_users_reply_is_the_same_beside_63_others(both):
    dora = Owner(tenant="default", user="dora")
    await adapt(both.native, text(92, 50), owner=dora, request_id="dora-1")
    ask = lambda: generate(both.vllm, text(8, 25), owner=dora, max_tokens=16, logprobs=0)
    alone = await ask()
    crowd = [generate(both.vllm, text(100 + i, 4 + i), owner=ANN if i % 2 else None, max_tokens=6) for i in range(63)]
    among = (await asyncio.gather(ask(), *crowd))[0]
    assert among.tokens == alone.tokens
    assert [t.logprob for t in among.logprobs] == pytest.approx([t.logprob for t in alone.logprobs], abs=1e-5)


async def test_a_slot_that_was_anothers_shows_nothing_of_it(both):
    """Every slot is used with a memory, then without one."""
    await adapt(both.native, text(93, 60), owner=BOB, request_id="bob-2")
    await asyncio.gather(*(generate(both.vllm, text(i, 9), owner=BOB, max_tokens=4) for i in range(8)))
    for reply in await asyncio.gather(*(generate(both.vllm, text(4, 30), max_tokens=12) for _ in range(8))):
        assert reply.tokens == (await generate(both.native, text(4, 30), max_tokens=12)).tokens


async def test_likelihoods_are_as_near_to_64_bits_as_the_native_engines(both, exactly):
    """Pooled over texts; ``exactly`` computes them in 64 bits."""
    floor = distance = 0.0
    count = 0
    for seed in range(6):
        prompt, continuations = tuple(text(seed, 20)), (tuple(text(40 + seed, 30)), tuple(text(50 + seed, 5)))
        request = ScoreRequest(prompt=prompt, continuations=continuations)
        wanted = [exactly([*prompt, *c])[len(prompt) - 1 :] for c in continuations]
        for ours, theirs, truth in zip(
            await both.native.score(request), await both.vllm.score(request), wanted, strict=True
        ):
            assert theirs.is_greedy == ours.is_greedy
            floor += sum(abs(a - b) for a, b in zip(ours.token_logprobs, truth, strict=True))
            distance += sum(abs(a - b) for a, b in zip(theirs.token_logprobs, truth, strict=True))
            count += len(truth)
    print(f"pooled distance to 64 bits: native {floor / count:.3g}, vLLM {distance / count:.3g} nats a token")
    assert distance / count <= AS_CLOSE * max(floor / count, LEAST_NOISE)


async def test_a_conversation_goes_on_as_if_it_had_not_been_interrupted(both):
    await adapt(both.native, text(94, 40), owner=ANN, request_id="ann-2")
    turns = [text(60, 9), text(61, 7), text(62, 40)]
    said = {
        key: [await generate(s, turn, owner=ANN, session_id=key, max_tokens=6) for turn in turns]
        for key, s in (("ours", both.native), ("theirs", both.vllm))
    }
    assert [r.tokens for r in said["theirs"]] == [r.tokens for r in said["ours"]]
    assert [r.session for r in said["theirs"]] == ["fresh", "resumed", "resumed"]
    whole = []
    for turn, reply in zip(turns, said["theirs"], strict=True):
        whole += turn
        if turn is turns[-1]:
            assert (await generate(both.vllm, whole, owner=ANN, max_tokens=6)).tokens == reply.tokens
        whole += reply.tokens


async def test_a_conversation_may_change_engines_between_turns(both):
    first = await generate(both.vllm, text(63, 20), owner=ANN, session_id="moves", max_tokens=5)
    second = await generate(both.native, text(64, 8), owner=ANN, session_id="moves", max_tokens=5)
    third = await generate(both.vllm, text(65, 8), owner=ANN, session_id="moves", max_tokens=5)
    whole = [*text(63, 20), *first.tokens, *text(64, 8), *second.tokens, *text(65, 8)]
    assert third.tokens == (await generate(both.native, whole, owner=ANN, max_tokens=5)).tokens


async def test_a_stop_string_ends_a_turn_where_the_native_engine_ends_it(both):
    spoken = await generate(both.native, text(66, 12), max_tokens=20)
    word = next(piece for piece in spoken.pieces[3:] if piece.strip())
    ends = {}
    for key, service in (("stop-ours", both.native), ("stop-theirs", both.vllm)):
        reply = await generate(service, text(66, 12), owner=BOB, session_id=key, max_tokens=20, stop=(word,))
        after = await generate(service, text(67, 5), owner=BOB, session_id=key, max_tokens=5)
        ends[key] = (reply.text, reply.end.finish_reason, reply.end.matched_stop, after.tokens)
    assert ends["stop-theirs"] == ends["stop-ours"]


async def test_stop_ids_and_the_least_length_are_kept(both):
    drawn = (await generate(both.native, text(68, 12), max_tokens=10)).tokens
    for options in ({"stop_token_ids": (drawn[4],)}, {"stop_token_ids": (drawn[1],), "min_tokens": 4}):
        ours, theirs = [await generate(s, text(68, 12), max_tokens=10, **options) for s in (both.native, both.vllm)]
        assert (theirs.tokens, theirs.end.finish_reason) == (ours.tokens, ours.end.finish_reason)


async def test_penalties_and_biases_shape_what_is_drawn_alike(both):
    for options in (
        {"repetition_penalty": 1.8},
        {"presence_penalty": 1.5, "frequency_penalty": 0.7},
        {"logit_bias": ((7, 50.0), (9, -50.0))},
    ):
        ours, theirs = [await generate(s, text(69, 30), max_tokens=12, **options) for s in (both.native, both.vllm)]
        assert theirs.tokens == ours.tokens


async def test_choices_are_drawn_apart(both):
    replies = await generate_all(both.vllm, text(71, 20), n=3, temperature=2.0, top_k=200, max_tokens=12)
    assert len({tuple(reply.tokens) for reply in replies}) == 3
    assert all(reply.end.usage.prompt_tokens == 20 for reply in replies)


async def test_a_cancelled_call_frees_its_slots_within_a_step(both):
    """Four calls fill every slot and are left in the middle; then four others run at once."""

    async def left(seed: int) -> None:
        request = GenerateRequest(
            prompt=tuple(text(seed, 10)), sampling=SamplingParams(temperature=0.0, max_tokens=300, ignore_eos=True)
        )
        async with aclosing(both.vllm.generate(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    return

    await asyncio.gather(*(left(seed) for seed in range(4)))
    replies = await asyncio.gather(*(generate(both.vllm, text(80 + i, 9), max_tokens=4) for i in range(4)))
    assert all(len(reply.tokens) == 4 for reply in replies)
    assert both.metrics.requests_running.value() <= 4


async def test_a_deadline_that_passes_ends_the_call(both):
    loop_now = asyncio.get_running_loop().time()
    with pytest.raises(DeadlineExceeded):
        await generate(both.vllm, text(72, 10), max_tokens=300, deadline=loop_now + 0.3)


async def test_a_full_queue_is_refused_by_name(both):
    scheduler = both.engine._loop._scheduler
    room, scheduler._max_queue_tokens = scheduler._max_queue_tokens, 60
    try:
        calls = [generate(both.vllm, text(i, 50), max_tokens=30) for i in range(9)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        scheduler._max_queue_tokens = room
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exhausted)]
    assert refused and refused[0].reason == "QUEUE_FULL"
    assert all(isinstance(outcome, Exhausted) or outcome.tokens for outcome in outcomes)


async def test_what_cannot_be_served_is_refused_and_named(both):
    with pytest.raises(InvalidRequest, match=r"sampling\.seed: 7 .* vLLM on a CPU"):
        await generate(both.vllm, text(1, 5), temperature=1.0, seed=7)
    with pytest.raises(InvalidRequest, match=r"prompt: token id 100000"):
        await generate(both.vllm, [100_000])
    with pytest.raises(InvalidRequest, match=r"sampling\.max_tokens: .* send less"):
        await generate(both.vllm, text(1, 100), max_tokens=100_000)
    with pytest.raises(NotFound):
        nobody = Owner(tenant="default", user="nobody")
        await generate(both.vllm, text(1, 5), owner=nobody, memory=MemoryChoice(on_missing=OnMissing.FAIL))
    with pytest.raises(FailedPrecondition, match=r"vLLM learns nothing: .*engine\.role"):
        await adapt(both.vllm, text(1, 50), owner=ANN, request_id="vllm")


async def test_the_stream_begins_with_the_version_and_tells_every_token(both):
    request = GenerateRequest(
        prompt=tuple(text(73, 10)), sampling=SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
    )
    events = [event async for event in both.vllm.generate(request)]
    assert isinstance(events[0], Started)
    assert sum(len(e.token_ids) for e in events if isinstance(e, Delta)) == 6


async def test_what_is_read_and_written_is_measured(both):
    before = [m.value() for m in (both.metrics.prompt_tokens_total, both.metrics.generation_tokens_total)]
    await generate(both.vllm, text(74, 40), max_tokens=7)
    after = [m.value() for m in (both.metrics.prompt_tokens_total, both.metrics.generation_tokens_total)]
    assert [now - then for now, then in zip(after, before, strict=True)] == [40, 7]
