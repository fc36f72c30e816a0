# ruff: noqa: ANN001, ANN201, SIM102
# mypy: ignore-errors
"""The pass over the logits: biases, penalties and early stops, and what every tile of a row adds up to."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.sample.order import ranked
from hope_kernels.sample.tiles import LARGEST

SMALLEST = tl.constexpr(1.1754943508222875e-38)


@triton.jit
def clamped(x):
    """x within the finite numbers."""
    return tl.minimum(tl.maximum(x, -LARGEST), LARGEST)


@triton.jit
def add_biases(x, at, start, ids_ptr, values_ptr, COUNT: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """x plus the biases whose id is in the tile."""
    listed = tl.arange(0, WIDE)
    ids = tl.load(ids_ptr + listed, mask=listed < COUNT, other=-1)
    if tl.sum(((ids >= start) & (ids < start + BLOCK)).to(tl.int32), 0) > 0:
        for i in range(COUNT):
            x = tl.where(at == tl.load(ids_ptr + i), x + tl.load(values_ptr + i), x)
    return x


@triton.jit
def forbid(x, at, start, ids_ptr, COUNT: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """-inf for the ids in the tile."""
    listed = tl.arange(0, WIDE)
    ids = tl.load(ids_ptr + listed, mask=listed < COUNT, other=-1)
    if tl.sum(((ids >= start) & (ids < start + BLOCK)).to(tl.int32), 0) > 0:
        for i in range(COUNT):
            x = tl.where(at == tl.load(ids_ptr + i), float("-inf"), x)
    return x


@triton.jit
def penalize(x, counts, in_prompt, repetition, presence, frequency):
    """Repetition over prompt and output, then presence and frequency over the output; what is finite stays finite."""
    repetition = tl.minimum(tl.maximum(repetition, SMALLEST), LARGEST)
    counted = counts.to(tl.float32)
    seen = (counts > 0) | (in_prompt != 0)
    shaped = tl.where(seen, clamped(tl.where(x > 0, tl.div_rn(x, repetition), x * repetition)), x)
    charge = clamped(clamped(frequency) * counted) + clamped(presence)
    shaped = tl.where(counts > 0, clamped(shaped - charge), shaped)
    return tl.where(x > float("-inf"), shaped, x)


@triton.jit(do_not_specialize=["num_slots"])
def shape_kernel(
    logits_ptr,
    slots_ptr,
    shaped_ptr,
    best_ptr,
    peak_ptr,
    mass_ptr,
    temperature_ptr,
    repetition_ptr,
    presence_ptr,
    frequency_ptr,
    position_ptr,
    min_tokens_ptr,
    stop_ids_ptr,
    bias_ids_ptr,
    bias_values_ptr,
    counts_ptr,
    in_prompt_ptr,
    logits_stride,
    counts_stride,
    in_prompt_stride,
    num_slots,
    least_temperature,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    STOPS: tl.constexpr,
    STOPS_WIDE: tl.constexpr,
    BIASES: tl.constexpr,
    BIASES_WIDE: tl.constexpr,
):
    """One program a (row, BLOCK of V): the shaped logits [B, V] of rows that draw, and of every tile [B, tiles]

    best: the rank of its highest shaped logit; peak and mass: the highest logit as given, and the sum of exp(logit -
    peak), NaN when a logit is NaN or +inf. Nothing for rows without a slot.
    """
    tiles: tl.constexpr = (V + BLOCK - 1) // BLOCK
    row = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    slot = tl.load(slots_ptr + row).to(tl.int64)
    if (slot <= 0) | (slot >= num_slots):
        return
    start = tile * BLOCK
    at = start + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + row * logits_stride + at, mask=at < V, other=float("-inf")).to(tl.float32)
    peak = tl.max(x, 0)
    mass = tl.sum(tl.exp(x - tl.maximum(peak, -LARGEST)), 0)
    broken = (x != x) | (x == float("inf"))
    if BIASES > 0:
        first = slot * BIASES
        x = add_biases(x, at, start, bias_ids_ptr + first, bias_values_ptr + first, BIASES, BIASES_WIDE, BLOCK)
        broken |= x != x
        x = tl.where(x > LARGEST, LARGEST, x)
    repetition = tl.load(repetition_ptr + slot)
    presence = tl.load(presence_ptr + slot)
    frequency = tl.load(frequency_ptr + slot)
    if (repetition != 1.0) | (presence != 0.0) | (frequency != 0.0):
        counts = tl.load(counts_ptr + slot * counts_stride + at, mask=at < V, other=0)
        in_prompt = tl.load(in_prompt_ptr + slot * in_prompt_stride + at, mask=at < V, other=0)
        x = penalize(x, counts, in_prompt, repetition, presence, frequency)
    if STOPS > 0:
        if tl.load(position_ptr + slot) < tl.load(min_tokens_ptr + slot):
            x = forbid(x, at, start, stop_ids_ptr + slot * STOPS, STOPS, STOPS_WIDE, BLOCK)
    if tl.load(temperature_ptr + slot) >= least_temperature:
        tl.store(shaped_ptr + row * V + at, x, mask=at < V)
    part = row * tiles + tile
    tl.store(best_ptr + part, tl.max(ranked(x, at), 0))
    tl.store(peak_ptr + part, peak)
    tl.store(mass_ptr + part, tl.where(tl.sum(broken.to(tl.int32), 0) > 0, float("nan"), mass))
