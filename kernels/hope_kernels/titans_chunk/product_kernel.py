# ruff: noqa: ANN001, ANN201
# mypy: ignore-errors
"""Products on fp16 units with fp32 sums, of tiles rounded to fp16 or, EXACT, of two fp16 parts each."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def operand(tile, EXACT: tl.constexpr):
    """A tile in fp16 for ``product``, and with EXACT what that leaves out, times 2^11 so that it keeps its digits."""
    high = tile.to(tl.float16)
    low = high
    if EXACT:
        low = ((tile.to(tl.float32) - high.to(tl.float32)) * 2048.0).to(tl.float16)
    return high, low


@triton.jit
def keep(room, at, size, tile, EXACT: tl.constexpr):
    """Put a tile where ``fetch`` finds it as an operand: two tiles ``size`` numbers apart."""
    high, low = operand(tile, EXACT)
    tl.store(room + at, high)
    if EXACT:
        tl.store(room + size + at, low)


@triton.jit
def fetch(room, at, size, EXACT: tl.constexpr):
    """What ``keep`` put there, behind a barrier; products want operands from memory, not from registers."""
    return tl.load(room + at), tl.load(room + at + (size if EXACT else 0))


@triton.jit
def transposed(a):
    """The transpose of an operand."""
    return tl.trans(a[0]), tl.trans(a[1])


@triton.jit
def product(a, b, acc, EXACT: tl.constexpr):
    """a @ b [+ acc] of two operands, in fp32."""
    if EXACT:
        low = tl.dot(a[1], b[0], acc=tl.dot(a[0], b[1]))
        return tl.dot(a[0], b[0], acc=acc) + low * (1.0 / 2048.0)
    return tl.dot(a[0], b[0], acc=acc)
