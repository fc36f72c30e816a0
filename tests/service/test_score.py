"""Score: log-likelihoods as the model gives them, with and without a memory."""

from __future__ import annotations

import asyncio
import gc

import pytest
import torch
from support.engine_calls import ANN, adapt, generate, ids
from support.waiting import until

from hope_serve.api import ScoreRequest
from hope_serve.engine.sequence import Sequence
from hope_serve.errors import Exhausted, InvalidRequest
from hope_serve.metrics import Metrics


def expected(checkpoint, prompt, continuation):
    tokens = torch.tensor([[*prompt, *continuation]])
    with torch.no_grad():
        hidden, _ = checkpoint.model(tokens, checkpoint.model.fresh_state(1))
        logprobs = torch.log_softmax(checkpoint.model.logits(hidden[0]), -1)
    first = len(prompt) - 1
    return [float(logprobs[first + i, token]) for i, token in enumerate(continuation)]


@pytest.mark.parametrize("budget", [2048, 7])
async def test_scores_are_the_models_own(open_engine, checkpoint, budget):
    prompt, continuations = ids(1, 13), (tuple(ids(2, 1)), tuple(ids(3, 22)))
    async with open_engine(max_batch_tokens=budget) as engine:
        results = await engine.score(ScoreRequest(prompt=tuple(prompt), continuations=continuations))
    for result, continuation in zip(results, continuations, strict=True):
        wanted = expected(checkpoint, prompt, continuation)
        assert result.token_logprobs == pytest.approx(wanted, abs=1e-4)
        assert result.logprob == pytest.approx(sum(wanted), abs=1e-3)


@pytest.mark.parametrize("num_neighbours", [0, 3])
@pytest.mark.parametrize("num_tokens", [8, 9, 10, 17])
async def test_a_score_ends_whatever_length_its_last_piece_has(open_engine, checkpoint, num_tokens, num_neighbours):
    prompt, continuation = ids(1, num_tokens - 2), tuple(ids(2, 3))
    async with open_engine(max_batch_tokens=8) as engine, asyncio.timeout(10):
        crowd = [generate(engine, ids(seed, 5), max_tokens=12) for seed in range(num_neighbours)]
        score = engine.score(ScoreRequest(prompt=tuple(prompt), continuations=(continuation,)))
        result = (await asyncio.gather(score, *crowd))[0][0]
    assert result.token_logprobs == pytest.approx(expected(checkpoint, prompt, continuation), abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"max_batch_tokens": 32, "max_slots": 2}])
async def test_a_prompt_is_read_once_for_all_its_continuations(open_engine, checkpoint, options):
    prompt, metrics = ids(1, 70), Metrics()
    continuations = tuple(tuple(ids(seed, 1 + seed)) for seed in range(20))
    async with open_engine(metrics=metrics, **options) as engine:
        results = await engine.score(ScoreRequest(prompt=tuple(prompt), continuations=continuations))
    for result, continuation in zip(results, continuations, strict=True):
        assert result.token_logprobs == pytest.approx(expected(checkpoint, prompt, continuation), abs=1e-4)
    read = metrics.registry.get_sample_value("hope_batch_tokens_sum")
    assert read == len(prompt) - 1 + sum(map(len, continuations))


async def test_when_one_continuation_is_refused_the_others_are_given_up(open_engine):
    metrics = Metrics()
    async with open_engine(metrics=metrics, max_slots=1, max_batch_tokens=8, max_queue_tokens=20_000) as engine:
        with pytest.raises(Exhausted):
            await engine.score(ScoreRequest(prompt=(7,), continuations=((8,) * 4000,) * 50))
        gauges = ("hope_queue_tokens", "hope_requests_running")
        value = metrics.registry.get_sample_value
        await until(lambda: not any(value(name) for name in gauges), 2)  # what was admitted of it would take longer


async def test_a_refused_score_leaves_no_tokens_for_a_search_through_everything(open_engine):
    async with open_engine(max_slots=1, max_batch_tokens=8, max_queue_tokens=20_000) as engine:
        gc.collect()
        older = [one for one in gc.get_objects() if type(one) is Sequence]  # of other tests
        kept = set(map(id, older))
        gc.disable()
        try:
            with pytest.raises(Exhausted):
                await engine.score(ScoreRequest(prompt=(7,), continuations=((8,) * 4000,) * 50))
            await until(lambda: not any(type(one) is Sequence and id(one) not in kept for one in gc.get_objects()), 20)
        finally:
            gc.enable()


async def test_greedy_continuation_is_known_as_such(engine):
    reply = await generate(engine, ids(1, 9), max_tokens=6)
    request = ScoreRequest(prompt=tuple(ids(1, 9)), continuations=(tuple(reply.tokens), tuple(ids(5, 6))))
    said, other = await engine.score(request)
    assert said.is_greedy and not other.is_greedy


async def test_what_was_taught_becomes_likelier(engine):
    text = ids(4, 40)
    request = lambda owner: ScoreRequest(prompt=tuple(text[:5]), continuations=(tuple(text[5:]),), owner=owner)
    (before,) = await engine.score(request(ANN))
    await adapt(engine, text, passes=2)
    (after,) = await engine.score(request(ANN))
    assert after.logprob > before.logprob + 1


@pytest.mark.parametrize(
    ("prompt", "continuations", "message"),
    [
        ((), ((1,),), "prompt: 0 tokens are fewer than 1"),
        ((7,), ((8,), ()), r"continuations\[1\]: 0 tokens are fewer than 1"),
        ((7,), ((10**6,),), r"continuations\[0\]: token id 1000000"),
    ],
)
async def test_bad_score_request_is_refused_by_field(engine, prompt, continuations, message):
    with pytest.raises(InvalidRequest, match=message):
        await engine.score(ScoreRequest(prompt=prompt, continuations=continuations))
