"""Random numbers by place instead of by turn: the number of a seed, a choice and a position is always the same.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds of
multiplication and exclusive or turn a counter of 128 bits and a key of 64 bits into 128 random bits. Integers alone,
so that every machine gets the same numbers. The layout is what a kernel can follow:

- a row's key is 64 bits of Philox(key = seed, counter = (choice, 0, 0, ``KEY_DOMAIN``)), so that no choice of one seed
  is a choice of another;
- the number at a position is 53 bits of Philox(key = row's key, counter = (position, 0)).
"""

from __future__ import annotations

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
KEY_DOMAIN = 0x484F5045
"""Keeps the counters of keys apart from those of positions."""
WORD = 0xFFFFFFFF


def uniform(seed: int, choice: int, position: int) -> float:
    """A number in [0, 1) with 53 bits.

    Args:
        seed: of 64 bits.
        choice: which of a request's choices, below 2**32.
        position: tokens of that choice that were drawn before, below 2**64.
    """
    return uniform_at(row_key(seed, choice), position)


def row_key(seed: int, choice: int) -> int:
    """The key of 64 bits under which one choice draws."""
    low, high, _, _ = philox((choice & WORD, 0, 0, KEY_DOMAIN), seed)
    return high << 32 | low


def uniform_at(key: int, position: int) -> float:
    """The number at ``position`` under a row's key."""
    low, high, _, _ = philox((position & WORD, position >> 32 & WORD, 0, 0), key)
    return float((low >> 5) * 2**26 + (high >> 6)) * 2.0**-53


def philox(counter: tuple[int, int, int, int], key: int) -> tuple[int, int, int, int]:
    """Philox4x32-10: four words of 32 bits for a counter of four words and a key of 64 bits, low word first."""
    a, b, c, d = counter
    key_low, key_high = key & WORD, key >> 32 & WORD
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = second >> 32 ^ b ^ key_low, second & WORD, first >> 32 ^ d ^ key_high, first & WORD
        key_low, key_high = key_low + KEY_STEPS[0] & WORD, key_high + KEY_STEPS[1] & WORD
    return a, b, c, d
