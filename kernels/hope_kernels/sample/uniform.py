"""One number a position: the counter-based generator Philox4x32-10, in integers that every device has."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF


def uniform(seed: Tensor, position: Tensor) -> Tensor:
    """A number in [0, 1) of 53 bits for every (seed, position), the same to the bit on every device.

    Args:
        seed: int64 of any shape, the generator's 64-bit key.
        position: int64 of a shape that broadcasts with it, the low half of its 128-bit counter.

    Returns:
        fp64: the first output word's upper 27 bits, then the second's upper 26.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), Philox4x32-10.
    """
    nothing = torch.zeros_like(position)
    words = philox((position & WORD, position >> 32 & WORD, nothing, nothing), (seed & WORD, seed >> 32 & WORD))
    return ((words[0] >> 5) * 2**26 + (words[1] >> 6)).double() * 2.0**-53


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four output words for four counter words and two key words: int64 that hold 32 bits each."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        # A product's 64 bits are right even where their sign is not: only these bits are looked at.
        even, odd = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (odd >> 32 & WORD) ^ c1 ^ k0, odd & WORD
        c2, c3 = (even >> 32 & WORD) ^ c3 ^ k1, even & WORD
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return c0, c1, c2, c3
