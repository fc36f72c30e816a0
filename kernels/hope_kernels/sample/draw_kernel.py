# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""One program a row: the likeliest token, or one by lot among those that the filters leave."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.sample.cut_kernel import FIRST_KEY, LEAST_BITS, bits_of, cut_equals, find_cut
from hope_kernels.sample.order import NOTHING, id_of, ordered, value_of
from hope_kernels.sample.tiles import LARGEST, locate, locate_tile, tile_at, weights_of

UNITS = tl.constexpr(2.0**44)
MOST_COUNTED = tl.constexpr(32767)


@triton.jit
def uniform(seed, position):
    """fp64 in [0, 1): see hope_kernels.sample.uniform."""
    low = position.to(tl.uint32)
    first, second, _, _ = tl.philox(seed, low, (position >> 32).to(tl.uint32), low * 0, low * 0)
    return ((first >> 5).to(tl.float64) * 67108864.0 + (second >> 6).to(tl.float64)) * (2.0**-53)


@triton.jit
def rate_of(temperature_ptr, slot):
    """1 / temperature, as a CPU rounds it."""
    return tl.div_rn((slot * 0 + 1).to(tl.float32), tl.load(temperature_ptr + slot))


@triton.jit
def kept_of(row_ptr, tile, peak, rate, min_p, bits, key, bound, V: tl.constexpr, BLOCK: tl.constexpr):
    """The weights of a tile, 0 for what lies behind the cut or weighs less than ``min_p``."""
    ids, x = tile_at(row_ptr, tile, V, BLOCK)
    weights = weights_of(x, peak, rate)
    weighs, keys = bits_of(weights), ordered(x)
    stays = (weighs > bits) | ((weighs == bits) & ((keys > key) | ((keys == key) & (ids <= bound))))
    return tl.where(stays & ((weights >= min_p) | (x == peak)), weights, 0.0)


@triton.jit
def lot(
    row_ptr,
    peak,
    rate,
    min_p,
    number,
    bits,
    key,
    bound,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    PLACES: tl.constexpr,
):
    """The token at ``number``, 0 to 1, of the way through the kept weights in order of id; they add up in integers."""
    place = tl.arange(0, PLACES)
    totals = tl.zeros((PLACES,), tl.int64)
    for tile in range((V + BLOCK - 1) // BLOCK):
        kept = kept_of(row_ptr, tile, peak, rate, min_p, bits, key, bound, V, BLOCK)
        totals = tl.where(place == tile, tl.sum((kept * UNITS).to(tl.int64), 0), totals)
    total = tl.sum(totals, 0)
    point = tl.minimum((number * total.to(tl.float64)).to(tl.int64), total - 1)
    tile, rest = locate_tile(totals, point)
    kept = kept_of(row_ptr, tile, peak, rate, min_p, bits, key, bound, V, BLOCK)
    return (tile * BLOCK + locate((kept * UNITS).to(tl.int64), rest, COLUMNS)).to(tl.int64)


@triton.jit(do_not_specialize=["num_slots"])
def draw_kernel(
    shaped_ptr,
    logits_ptr,
    slots_ptr,
    best_ptr,
    peak_ptr,
    mass_ptr,
    temperature_ptr,
    top_p_ptr,
    min_p_ptr,
    top_k_ptr,
    seed_ptr,
    position_ptr,
    counts_ptr,
    token_ptr,
    logprob_ptr,
    number_ptr,
    logsum_ptr,
    logits_stride,
    counts_stride,
    num_slots,
    least_temperature,
    V: tl.constexpr,
    PARTS: tl.constexpr,
    PARTS_WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    HELD: tl.constexpr,
    COLUMNS: tl.constexpr,
    PLACES: tl.constexpr,
):
    """One program a row; best, peak and mass: what ``shape_kernel`` found in each of its PARTS.

    logsum: the log of the sum of exp of the logits as given, NaN for a row that is no number, 0 for padding.
    """
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + row).to(tl.int64)
    if (slot <= 0) | (slot >= num_slots):
        nothing = tl.where(slot == 0, 0.0, float("nan"))
        tl.store(token_ptr + row, slot * 0)
        tl.store(logprob_ptr + row, nothing)
        tl.store(logsum_ptr + row, nothing)
        tl.store(number_ptr + row, (slot == 0).to(tl.int8))
        return
    part = tl.arange(0, PARTS_WIDE)
    best = tl.max(tl.load(best_ptr + row * PARTS + part, mask=part < PARTS, other=NOTHING), 0)
    peaks = tl.load(peak_ptr + row * PARTS + part, mask=part < PARTS, other=float("-inf"))
    masses = tl.load(mass_ptr + row * PARTS + part, mask=part < PARTS, other=0.0)
    highest = tl.maximum(tl.max(peaks, 0), -LARGEST)
    mass = tl.sum(masses * tl.exp(tl.maximum(peaks, -LARGEST) - highest), 0)
    peak = value_of(best)
    if (mass != mass) | (peak == float("-inf")):
        tl.store(token_ptr + row, slot * 0)
        tl.store(logprob_ptr + row, float("nan"))
        tl.store(logsum_ptr + row, float("nan"))
        tl.store(number_ptr + row, (slot * 0).to(tl.int8))
        return
    tl.store(logsum_ptr + row, highest + tl.log(mass))
    token = id_of(best)
    row_ptr = shaped_ptr + row * V
    if tl.load(temperature_ptr + slot) >= least_temperature:
        # Scalars are read when they are needed, again if need be: held on to, they would cost the search its registers.
        rate = rate_of(temperature_ptr, slot)
        top_k = tl.load(top_k_ptr + slot)
        bits = top_k * 0 + LEAST_BITS
        key = slot * 0 + FIRST_KEY
        bound = top_k * 0 + V
        if (top_k > 0) | (tl.load(top_p_ptr + slot) < 1.0):
            _, x = tile_at(row_ptr, 0, V, max(HELD, BLOCK))
            weights = weights_of(x, peak, rate)
            slot = tl.load(slots_ptr + row).to(tl.int64)
            top_k, top_p = tl.load(top_k_ptr + slot), tl.load(top_p_ptr + slot)
            bits, needed, equals = find_cut(weights, row_ptr, peak, rate, top_k, top_p, V, BLOCK, HELD > 0)
            if needed < equals:
                rate = rate_of(temperature_ptr, tl.load(slots_ptr + row).to(tl.int64))
                key, bound = cut_equals(row_ptr, peak, rate, bits, needed, equals, V, BLOCK, COLUMNS, PLACES)
        slot = tl.load(slots_ptr + row).to(tl.int64)
        rate = rate_of(temperature_ptr, slot)
        number = uniform(tl.load(seed_ptr + slot), tl.load(position_ptr + slot))
        min_p = tl.load(min_p_ptr + slot)
        token = lot(row_ptr, peak, rate, min_p, number, bits, key, bound, V, BLOCK, COLUMNS, PLACES)
    tl.debug_barrier()
    slot = tl.load(slots_ptr + row).to(tl.int64)
    given = tl.load(logits_ptr + row * logits_stride + token).to(tl.float32)
    tl.store(token_ptr + row, token)
    tl.store(logprob_ptr + row, given - tl.load(logsum_ptr + row))
    tl.store(number_ptr + row, (slot > 0).to(tl.int8))
    tl.store(position_ptr + slot, tl.load(position_ptr + slot) + 1)
    count_at = counts_ptr + slot * counts_stride + token
    tl.store(count_at, tl.minimum(tl.load(count_at).to(tl.int32) + 1, MOST_COUNTED).to(tl.int16))
