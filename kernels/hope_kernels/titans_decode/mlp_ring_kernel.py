# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""What a ring's closed rows add to the product of a vector with a memory that is read through them."""

from __future__ import annotations

import triton
import triton.language as tl

from hope_kernels.titans_decode.dot_kernel import in_parts


@triton.jit
def asked_rows(first, second, DOTS: tl.constexpr):
    """Two vectors as the rows of a tile that ``mix_rows`` takes, [2, N]; for dots [16, N], the two at 0, 1, 8, 9."""
    m = tl.arange(0, 16 if DOTS else 2)[:, None] % 8
    return tl.where(m == 0, first[None, :], tl.where(m == 1, second[None, :], 0.0))


@triton.jit
def mix_rows(
    asked,
    until,
    keys_ptr,
    values_ptr,
    gate_ptr,
    mixed_ptr,
    closed_rows,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    ROOM: tl.constexpr,
    COUNT: tl.constexpr,
    BY_ETA: tl.constexpr,
    RING_ROWS: tl.constexpr,
    DOTS: tl.constexpr,
):
    """mixed[m] = sum over s of (asked[m] . keys_s) exp(until[m] - decay_s) [eta_s] values_s for m under COUNT.

    asked: of ``asked_rows``; until: fp32 [its rows, 1]; mixed [COUNT, ROOM] can be loaded behind the next barrier.
    On matrix units rows m and m + 8 are parts of the same vector, in one thread: adding them moves nothing.
    """
    key, value = tl.arange(0, KEYS), tl.arange(0, VALUES)
    if DOTS:
        asked = in_parts(asked, keys_ptr.dtype.element_ty)
    mixed = tl.zeros((asked.shape[0], VALUES), tl.float32)
    for start in tl.range(0, closed_rows, RING_ROWS, num_stages=1):
        rows = start + tl.arange(0, RING_ROWS)
        closed = rows < closed_rows
        keys = tl.load(keys_ptr + rows[:, None] * KEYS + key[None, :], mask=closed[:, None], other=0.0)
        values = tl.load(values_ptr + rows[:, None] * VALUES + value[None, :], mask=closed[:, None], other=0.0)
        decay = tl.load(gate_ptr + 2 * rows + 1, mask=closed, other=0.0)
        weight = tl.exp(until - decay[None, :])
        if BY_ETA:
            weight *= tl.load(gate_ptr + 2 * rows, mask=closed, other=0.0)[None, :]
        if DOTS:
            by = tl.dot(asked, tl.trans(keys)) * weight
            mixed = tl.dot(by.to(values.dtype), values, mixed)
        else:
            by = tl.sum(asked[:, None, :] * keys.to(tl.float32)[None, :, :], 2) * weight
            mixed += tl.sum(by[:, :, None] * values.to(tl.float32)[None, :, :], 1)
    if DOTS:
        mixed = tl.sum(tl.reshape(mixed, (2, 8, VALUES)), 0)
    m = tl.arange(0, mixed.shape[0])[:, None]
    tl.store(mixed_ptr + m * ROOM + value[None, :], mixed, mask=m < COUNT)
