"""Score: log-likelihoods as the model gives them, with and without a memory."""

from __future__ import annotations

import pytest
import torch
from support.engine_calls import ANN, adapt, generate, ids

from hope_serve.api import ScoreRequest
from hope_serve.errors import InvalidRequest


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
