"""Draws: Philox as published, and numbers that share nothing between seeds, choices and positions."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from hope_serve.engine.draws import philox, row_key, uniform, uniform_at


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0_A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_published_words(counter, key, words):
    assert philox(counter, key) == words


def test_the_numbers_are_these_on_every_machine():
    """Written down once: a release that draws otherwise breaks everybody's seeds."""
    assert uniform(0, 0, 0) == 0.03207227107325772
    assert uniform(2**63 - 1, 15, 2**20) == 0.14737304300924847
    low, high, _, _ = philox((3, 1, 0, 0), row_key(7, 2))
    assert uniform(7, 2, 2**32 + 3) == ((low >> 5) * 2**26 + (high >> 6)) / 2**53


def test_a_number_is_in_the_unit_interval_and_uses_53_bits():
    numbers = [uniform_at(row_key(1, 0), position) for position in range(4000)]
    assert all(0 <= number < 1 for number in numbers)
    assert all((number * 2**53).is_integer() for number in numbers)
    assert any((number * 2**52) % 1 for number in numbers)


def test_numbers_are_uniform():
    counts = Counter(int(uniform(5, 0, position) * 16) for position in range(16_000))
    assert all(abs(counts[part] - 1000) < 5 * math.sqrt(1000) for part in range(16))


def test_no_seed_choice_or_position_repeats_another():
    """Seeds that differ by 2**32 or by the number of a choice, and choices, are streams of their own."""
    seeds = [0, 1, 2, 3, 2**32, 2**32 + 1, 2**63 - 1, 2**63 - 1 - 2**32]
    streams = {(s, c): tuple(uniform(s, c, p) for p in range(8)) for s in seeds for c in range(4)}
    numbers = [number for stream in streams.values() for number in stream]
    assert len(set(numbers)) == len(numbers)
