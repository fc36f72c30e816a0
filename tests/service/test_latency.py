"""What readers of a generation have to wait for, by the messages that its tokens come in."""

import pytest

from hope_serve.api import Delta
from hope_serve.metrics import Metrics
from hope_serve.service import latency
from hope_serve.service.latency import Latency


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands where it is put."""
    now = [100.0]
    monkeypatch.setattr(latency.time, "monotonic", lambda: now[0])
    return now


def _value(metrics, name):
    return metrics.registry.get_sample_value(f"hope_{name}")


@pytest.mark.parametrize("messages", [(1, 1, 1, 1), (1, 3), (3, 1), (4,), (2, 2)], ids=str)
def test_between_n_tokens_lie_n_less_one_gaps_however_they_are_sent(clock, messages):
    metrics = Metrics()
    timed = Latency(metrics, tier="none", began=99.0)
    for size in messages:
        clock[0] += 0.5
        timed.seen(Delta(choice=0, text="", token_ids=(7,) * size))
    assert _value(metrics, "inter_token_latency_seconds_count") == 3
    assert _value(metrics, "inter_token_latency_seconds_sum") == pytest.approx(0.5 * (len(messages) - 1))


def test_every_choice_has_gaps_of_its_own_and_a_call_one_first_token(clock):
    metrics = Metrics()
    timed = Latency(metrics, tier="store", began=99.0)
    for choice in (0, 1, 0, 1):
        clock[0] += 0.25
        timed.seen(Delta(choice=choice, text="", token_ids=(7,)))
    assert _value(metrics, "inter_token_latency_seconds_count") == 2
    assert _value(metrics, "inter_token_latency_seconds_sum") == pytest.approx(1.0)
    first = metrics.registry.get_sample_value("hope_time_to_first_token_seconds_sum", {"memory_tier": "store"})
    assert first == pytest.approx(1.25)
