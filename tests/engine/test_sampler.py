"""Sampling parameters, each against its definition."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hope_serve.api import SamplingParams
from hope_serve.engine.draws import row_key
from hope_serve.engine.sampler import sample
from hope_serve.engine.sequence import Purpose, Sampled, Sequence

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])


def sequence(*, seed=0, choice=0, tokens=(), sampled=(), stop_ids=(), **options):
    made = Sequence(
        purpose=Purpose.GENERATE,
        tokens=[*tokens, *sampled],
        listener=None,
        sampling=SamplingParams(**({"temperature": 1.0} | options)),
        draw_key=row_key(seed, choice),
        stop_ids=frozenset(stop_ids),
    )
    made.sampled = [Sampled(token=t) for t in sampled]
    return made


def draws(count=400, logits=LOGITS, **options):
    runners = [sequence(choice=choice, **options) for choice in range(count)]
    return Counter(sampled.token for sampled in sample(logits.expand(count, -1), runners))


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
    assert set(draws(top_p=1.0)) == {0, 1, 2, 3, 4}


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
    for seed in range(8):
        alone = sample(LOGITS[None], [sequence(seed=seed)])[0].token
        rows = sample(torch.stack([LOGITS.flip(0), LOGITS, LOGITS * 2]), [sequence(seed=s) for s in (41, seed, 49)])
        assert rows[1].token == alone


def test_logits_are_left_as_they_were():
    logits = LOGITS.clone()[None]
    sample(logits, [sequence(logit_bias=((1, 5.0),), repetition_penalty=2.0, tokens=(0,))])
    assert torch.equal(logits[0], LOGITS)


TINY = (1e-6, 1e-38, 1e-46, 5e-324)


@pytest.mark.parametrize("temperature", TINY)
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.95}, {"min_p": 0.05}, {"top_k": 3}, {"top_p": 5e-324}])
def test_tiny_temperatures_are_greedy(temperature, filters):
    assert draws(20, temperature=temperature, **filters) == {0: 20}
    close = torch.tensor([1.0, 1.0000002, 0.5])  # next to each other in float32
    assert draws(20, logits=close, temperature=temperature, **filters) == {1: 20}


@pytest.mark.parametrize("filters", [{"top_p": 1e-46}, {"top_p": 5e-324}, {"top_k": 1}, {"min_p": 1.0}])
@pytest.mark.parametrize("temperature", [1e-5, 1.0, 100.0])
def test_the_best_token_stays_whatever_the_filters_say(filters, temperature):
    assert draws(20, temperature=temperature, **filters) == {0: 20}


@pytest.mark.parametrize("penalty", [5e-324, 1e-40, 1e-38, 10.0])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.95}, {"min_p": 0.05, "temperature": 100.0}])
def test_the_smallest_penalties_leave_numbers(penalty, options):
    """A penalty far below 1 makes what was seen the likeliest by far, and what was seen below 0 the unlikeliest."""
    seen = 1 if penalty < 1 else 0
    assert set(draws(20, repetition_penalty=penalty, tokens=(seen,), **({"temperature": 1.0} | options))) <= (
        {1} if penalty < 1 else {0, 1, 2, 3, 4}
    )
    assert 3 not in draws(20, repetition_penalty=10.0, tokens=(3,), temperature=0.01)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"temperature": 0.0, "logprobs": 1}])
def test_logits_that_are_not_numbers_are_refused(bad, options):
    logits = LOGITS.clone()
    logits[3] = bad
    with pytest.raises(FloatingPointError):
        sample(torch.stack([LOGITS, logits]), [sequence(), sequence(**options)])
    with pytest.raises(FloatingPointError):
        sample(torch.full((1, 5), -torch.inf), [sequence(**options)])


def test_a_bias_counts_once_for_every_token_it_names():
    biases = tuple((token, 3.0 * token) for token in range(5))
    chosen = sample(LOGITS[None], [sequence(temperature=0.0, logit_bias=biases)])[0]
    assert chosen.token == 4  # -2 + 12
