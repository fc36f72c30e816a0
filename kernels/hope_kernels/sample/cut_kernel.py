# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Where top-k and top-p cut a row: not by sorting, but by halving the range of weights until one is left.

Positive fp32 are in the order of their bits. Tokens are ranked by weight, then logit, then id, which is their order by
logit and id; a cut is the triple of the last one that stays.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.sample.order import ordered
from hope_kernels.sample.tiles import locate, locate_tile, tile_at, weights_of

LEAST_BITS = tl.constexpr((127 - 44) << 23)
ONE_BITS = tl.constexpr(127 << 23)
FIRST_KEY = tl.constexpr(-(2**31))
LAST_KEY = tl.constexpr(2**31 - 1)


@triton.jit
def bits_of(weights):
    """int32."""
    return weights.to(tl.int32, bitcast=True)


@triton.jit
def reach(weights, row_ptr, peak, rate, least, V: tl.constexpr, BLOCK: tl.constexpr, HELD: tl.constexpr):
    """How many weights have at least the bits ``least``, and their sum. HELD: ``weights`` are those of all the row."""
    if HELD:
        inside = bits_of(weights) >= least
        return tl.sum(inside.to(tl.int32), 0), tl.sum(tl.where(inside, weights, 0.0), 0)
    else:  # noqa: RET505  (what follows a return would be compiled too)
        count = tl.zeros((BLOCK,), tl.int32)
        mass = tl.zeros((BLOCK,), tl.float32)
        for tile in range((V + BLOCK - 1) // BLOCK):
            _, x = tile_at(row_ptr, tile, V, BLOCK)
            part = weights_of(x, peak, rate)
            inside = bits_of(part) >= least
            count += inside.to(tl.int32)
            mass += tl.where(inside, part, 0.0)
        return tl.sum(count, 0), tl.sum(mass, 0)


@triton.jit
def find_cut(weights, row_ptr, peak, rate, top_k, top_p, V: tl.constexpr, BLOCK: tl.constexpr, HELD: tl.constexpr):
    """(bits of the least weight that stays, how many of that weight stay, how many there are).

    top_k, top_p: 0 and 1 for off.
    """
    low = top_k * 0 + LEAST_BITS
    high = top_k * 0 + ONE_BITS
    at_low, mass = reach(weights, row_ptr, peak, rate, low, V, BLOCK, HELD)
    above = at_low * 0
    above_mass = mass * 0
    wanted = tl.where(top_k > 0, tl.minimum(top_k, at_low), at_low)
    share = tl.where(top_p < 1.0, top_p * mass, float("inf"))
    # at_low tokens have at least the weight low, which is enough; those above high are not.
    while (low < high) & (at_low - above > 1):
        middle = low + (high - low + 1) // 2
        count, mass = reach(weights, row_ptr, peak, rate, middle, V, BLOCK, HELD)
        enough = (count >= wanted) | (mass >= share)
        low = tl.where(enough, middle, low)
        at_low = tl.where(enough, count, at_low)
        high = tl.where(enough, high, middle - 1)
        above = tl.where(enough, above, count)
        above_mass = tl.where(enough, above_mass, mass)
    equals = at_low - above
    by_mass = tl.ceil((share - above_mass) / low.to(tl.float32, bitcast=True))
    needed = tl.minimum(tl.maximum(by_mass, 1.0), (wanted - above).to(tl.float32)).to(tl.int32)
    # Two tokens of different weights would have left more of the range.
    return low, tl.where(equals > 1, needed, 1), equals


@triton.jit
def keys_of_equals(row_ptr, tile, peak, rate, bits, V: tl.constexpr, BLOCK: tl.constexpr):
    """(which tokens of a tile have this weight, the keys of all)."""
    _, x = tile_at(row_ptr, tile, V, BLOCK)
    return bits_of(weights_of(x, peak, rate)) == bits, ordered(x).to(tl.int64)


@triton.jit
def cut_equals(
    row_ptr,
    peak,
    rate,
    bits,
    needed,
    equals,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    PLACES: tl.constexpr,
):
    """(key, id) of the last of the first ``needed`` among ``equals`` tokens of one weight, by logit, then id."""
    low = needed.to(tl.int64) * 0 + LAST_KEY
    high = needed.to(tl.int64) * 0 + FIRST_KEY
    for tile in range((V + BLOCK - 1) // BLOCK):
        equal, keys = keys_of_equals(row_ptr, tile, peak, rate, bits, V, BLOCK)
        low = tl.minimum(low, tl.min(tl.where(equal, keys, LAST_KEY), 0))
        high = tl.maximum(high, tl.max(tl.where(equal, keys, FIRST_KEY), 0))
    at_low = equals
    above = needed * 0
    while (low < high) & (at_low - above > 1):
        middle = low + (high - low + 1) // 2
        count = needed * 0
        for tile in range((V + BLOCK - 1) // BLOCK):
            equal, keys = keys_of_equals(row_ptr, tile, peak, rate, bits, V, BLOCK)
            count += tl.sum((equal & (keys >= middle)).to(tl.int32), 0)
        enough = count >= needed
        low = tl.where(enough, middle, low)
        at_low = tl.where(enough, count, at_low)
        high = tl.where(enough, high, middle - 1)
        above = tl.where(enough, above, count)
    bound = needed * 0 + V
    if needed < at_low:
        place = tl.arange(0, PLACES)
        counts = tl.zeros((PLACES,), tl.int32)
        for tile in range((V + BLOCK - 1) // BLOCK):
            equal, keys = keys_of_equals(row_ptr, tile, peak, rate, bits, V, BLOCK)
            counts = tl.where(place == tile, tl.sum((equal & (keys == low)).to(tl.int32), 0), counts)
        tile, rest = locate_tile(counts, needed - above - 1)
        equal, keys = keys_of_equals(row_ptr, tile, peak, rate, bits, V, BLOCK)
        bound = tile * BLOCK + locate((equal & (keys == low)).to(tl.int32), rest, COLUMNS)
    return low, bound
