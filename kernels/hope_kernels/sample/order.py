# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Numbers as integers of the same order, and a value with its id as one integer that a single maximum compares."""

from __future__ import annotations

import triton
import triton.language as tl

LAST_ID = tl.constexpr(0x7FFFFFFF)
NOTHING = tl.constexpr(-(2**63))


@triton.jit
def ordered(x):
    """int32 that compare as the fp32 do; both zeros are one."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def ranked(x, ids):
    """int64: larger for a larger x, and among equals for a lower id."""
    return (ordered(x).to(tl.int64) << 32) | (ids ^ LAST_ID).to(tl.int64)


@triton.jit
def value_of(rank):
    """x of ``ranked``."""
    key = (rank >> 32).to(tl.int32)
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def id_of(rank):
    """ids of ``ranked``, as int64."""
    return (rank & LAST_ID) ^ LAST_ID
