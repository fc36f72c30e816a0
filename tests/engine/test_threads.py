"""Small passes leave a core to others, large ones take them all, and everything is as before afterwards."""

from __future__ import annotations

import os

import pytest
import torch

from hope_serve.engine.threads import SMALL_PASS_TOKENS, IntraOpThreads


@pytest.fixture
def cores(monkeypatch):
    """Says how many cores this process may use, and how many threads an operation has."""
    before = torch.get_num_threads()

    def say(num_cores, num_threads):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_cores)))
        torch.set_num_threads(num_threads)

    yield say
    torch.set_num_threads(before)


def during(threads, num_tokens):
    with threads.of(num_tokens):
        return torch.get_num_threads()


@pytest.mark.parametrize(
    ("num_cores", "num_threads", "few"),
    [(2, 2, 1), (4, 4, 3), (1, 1, 1), pytest.param(4, 2, 2, id="somebody left cores free before")],
)
def test_a_small_pass_leaves_a_core_and_a_large_one_takes_all(cores, num_cores, num_threads, few):
    cores(num_cores, num_threads)
    threads = IntraOpThreads(constant=False)
    assert during(threads, 1) == during(threads, SMALL_PASS_TOKENS) == few
    assert during(threads, SMALL_PASS_TOKENS + 1) == num_threads == torch.get_num_threads()


def test_where_the_number_must_not_change_it_does_not(cores):
    cores(2, 2)
    assert during(IntraOpThreads(constant=True), 1) == 2


def test_a_fault_in_a_pass_gives_the_cores_back(cores):
    cores(2, 2)
    with pytest.raises(ZeroDivisionError), IntraOpThreads(constant=False).of(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
