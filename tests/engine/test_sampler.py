"""Sampling parameters, each against its definition."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hope_serve.api import SamplingParams
from hope_serve.engine.sampler import sample
from hope_serve.engine.sequence import Purpose, Sampled, Sequence

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])


def sequence(*, seed=0, tokens=(), sampled=(), stop_ids=(), **options):
    made = Sequence(
        purpose=Purpose.GENERATE,
        tokens=[*tokens, *sampled],
        listener=None,
        sampling=SamplingParams(**({"temperature": 1.0} | options)),
        generator=torch.Generator().manual_seed(seed),
        stop_ids=frozenset(stop_ids),
    )
    made.sampled = [Sampled(token=t) for t in sampled]
    return made


def draws(count=400, logits=LOGITS, **options):
    runner = sequence(**options)
    return Counter(sample(logits[None], [runner])[0].token for _ in range(count))


def test_frequencies_follow_the_softmax():
    counts = draws(4000)
    expected = torch.softmax(LOGITS, -1)
    assert all(abs(counts[i] / 4000 - float(expected[i])) < 0.03 for i in range(5))


def test_temperature_zero_is_greedy():
    assert draws(20, temperature=0.0) == {0: 20}


def test_high_temperature_flattens():
    assert draws(2000, temperature=100.0)[4] > 300


def test_top_k_keeps_the_k_likeliest():
    assert set(draws(top_k=2)) == {0, 1}


def test_top_p_keeps_the_smallest_set_with_that_mass():
    assert set(draws(top_p=0.64)) == {0, 1}  # .636 alone does not reach .64
    assert set(draws(top_p=0.63)) == {0}


def test_min_p_keeps_what_is_near_the_likeliest():
    assert set(draws(min_p=0.3)) == {0, 1}


def test_repetition_penalty_counts_prompt_and_output():
    assert sample(LOGITS[None], [sequence(temperature=0.0, repetition_penalty=3.0, tokens=(0,))])[0].token == 1
    assert sample(LOGITS[None], [sequence(temperature=0.0, repetition_penalty=3.0, sampled=(0,))])[0].token == 1


def test_presence_and_frequency_penalties_count_the_output_only():
    ask = lambda **options: sample(LOGITS[None], [sequence(temperature=0.0, **options)])[0].token
    assert ask(presence_penalty=1.5, tokens=(0,)) == 0
    assert ask(presence_penalty=1.5, sampled=(0,)) == 1
    assert ask(frequency_penalty=0.6, sampled=(0,)) == 0
    assert ask(frequency_penalty=0.6, sampled=(0, 0)) == 1


def test_min_tokens_hold_back_stop_tokens():
    assert sample(LOGITS[None], [sequence(temperature=0.0, min_tokens=1, stop_ids=(0,))])[0].token == 1
    assert sample(LOGITS[None], [sequence(temperature=0.0, min_tokens=1, stop_ids=(0,), sampled=(3,))])[0].token == 0


def test_logprobs_are_those_of_the_untouched_distribution():
    chosen = sample(LOGITS[None], [sequence(temperature=0.0, logprobs=2, logit_bias=((4, 50.0),))])[0]
    expected = torch.log_softmax(LOGITS, -1)
    assert chosen.token == 4
    assert chosen.logprob == pytest.approx(float(expected[4]))
    assert chosen.top == ((0, pytest.approx(float(expected[0]))), (1, pytest.approx(float(expected[1]))))


def test_rows_do_not_depend_on_each_other():
    alone = [sample(LOGITS[None], [sequence(seed=5)])[0].token for _ in range(1)]
    rows = sample(torch.stack([LOGITS.flip(0), LOGITS, LOGITS * 2]), [sequence(seed=s) for s in (1, 5, 9)])
    assert rows[1].token == alone[0]


def test_logits_are_left_as_they_were():
    logits = LOGITS.clone()[None]
    sample(logits, [sequence(logit_bias=((1, 5.0),), repetition_penalty=2.0, tokens=(0,))])
    assert torch.equal(logits[0], LOGITS)
