"""The generator of the draws: published answers, and the same bits from torch and from the kernels."""

from __future__ import annotations

import pytest
import torch
from hope_kernels.sample import uniform
from hope_kernels.sample.uniform import philox

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# The known answers that come with the generator's reference implementation (Random123), philox4x32 of 10 rounds.
KNOWN = [  # counter, key, output
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
SEEDS = (0, 1, -1, 2**63 - 1, -(2**63), 0x243F6A8885A308D3)
POSITIONS = (0, 1, 2, 4095, 2**32 - 1, 2**32, 2**40 + 7)


def words(text):
    return tuple(torch.tensor(int(word, 16)) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, output):
    assert philox(words(counter), words(key)) == words(output)


def test_uniform_is_made_of_53_bits_of_the_first_two_words():
    first, second = 0x6627E8D5, 0xE169C58D
    expected = ((first >> 5) * 2**26 + (second >> 6)) / 2**53
    assert uniform(torch.tensor(0), torch.tensor(0)).item() == expected


def test_kernels_and_torch_draw_the_same_bits():
    from support.uniform_kernel import uniform_kernel

    seeds, positions = torch.cartesian_prod(torch.tensor(SEEDS), torch.tensor(POSITIONS)).unbind(1)
    out = torch.full((len(seeds),), torch.nan, dtype=torch.float64, device=DEVICE)
    uniform_kernel[(len(seeds),)](seeds.contiguous().to(DEVICE), positions.contiguous().to(DEVICE), out)
    assert torch.equal(out.cpu(), uniform(seeds, positions))
    assert len(set(out.tolist())) == len(seeds)


def test_numbers_are_spread_evenly_over_positions_and_over_seeds():
    run = torch.arange(20000)
    for numbers in (uniform(torch.tensor(7), run), uniform(run, torch.tensor(7))):
        share = torch.histc(numbers, bins=10, min=0, max=1) / len(run)
        assert numbers.min() >= 0 and numbers.max() < 1
        assert (share - 0.1).abs().max() < 0.01
        assert torch.corrcoef(torch.stack([numbers[1:], numbers[:-1]]))[0, 1].abs() < 0.03
